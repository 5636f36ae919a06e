"""The command that shows what changed between two versions.

Does not know how they are compared.
"""

from __future__ import annotations

from deployments.cli.console import ProgressLine, say, say_json
from deployments.launch import run_flow
from flows.diff import diff
from flows.differences import diff_text
from tasks.diff import choose_pair
from tasks.specs import DiffSpec
from tasks.storage.store import open_store


def show_diff(spec: DiffSpec, *, as_json: bool) -> None:
    """Print a diff; what is wrong with the names is said before anything is started."""
    store = open_store()
    choose_pair(store, spec)
    report = run_flow(diff, spec, settings=store.settings, listen=ProgressLine())
    say_json(report.model_dump(mode="json")) if as_json else say(diff_text(report))
