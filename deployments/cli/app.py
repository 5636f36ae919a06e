"""The Typer application, and what every command needs: options, specs, running a flow.

Does not know any command. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agents.errors import InputError
from deployments.cli.console import ProgressLine

if TYPE_CHECKING:
    from pydantic import BaseModel

    from agents.schemas import Persona
    from tasks.storage.store import Store

app = typer.Typer(
    help="Train small models to play a role, prove they play it better, only then put them on stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
PersonaName = Annotated[str, typer.Argument(metavar="PERSONA", help="a name, or the path of a YAML file")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for a script")]
Judge = Annotated[str | None, typer.Option(help="a judge plugin, or model:ADDRESS; else the reference")]
Epochs = Annotated[int | None, typer.Option(help="passes over the examples")]
LearningRate = Annotated[float | None, typer.Option(help="peak learning rate")]
OneJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="only this job")]
Result = TypeVar("Result")


@app.callback()
def prepare() -> None:
    """Set the environment up for what reads it on import: Prefect, and the threads of torch."""
    from deployments.launch import embed
    from tasks.storage.settings import Settings

    # Threads that spin while they wait make two busy processes on two cores several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    embed(Settings())


def home_store() -> Store:
    """Open the store of the environment."""
    from tasks.storage.store import open_store

    return open_store()


def persona_of(name_or_path: str) -> Persona:
    """Return a persona; raise NotFound or PersonaInvalid."""
    from tasks.cast import find_persona

    return find_persona(home_store(), name_or_path)


def run(flow: Callable[..., Coroutine[Any, Any, Result]], *args: object) -> Result:
    """Run a flow to its end with progress on standard error, and return what it returned."""
    from deployments.launch import run_flow

    return run_flow(flow, *args, settings=home_store().settings, listen=ProgressLine())


def spec_of(kind: type[BaseModel], **fields: Any) -> Any:
    """Return a spec of what the options say; raise InputError naming the option that is wrong."""
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise InputError(
            f"--{name}: {first['msg']}, got {first['input']!r}.", "`--help` says what it takes."
        ) from error
