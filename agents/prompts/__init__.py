"""The prompts, one Jinja template each beside this file, and the one way to render them.

Does not know which stage asks. A template whose text changes gets a new version in the module that uses
it, so that the ledger asks again for that stage alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **values: object) -> str:
    """Render `template`.j2 with the values; a value that is missing is an error, never an empty string."""
    return _environment().get_template(f"{template}.j2").render(**values).strip()


@cache
def _environment() -> Environment:
    return Environment(  # noqa: S701  (plain text for models, not HTML)
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
