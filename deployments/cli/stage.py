"""Commands of the stage: promote, approve, roll back, list and serve versions.

Does not know how a version is judged.
"""

from __future__ import annotations

from typing import Annotated

import typer

from agents.errors import InputError
from deployments.cli.app import AsJson, PersonaName, app, home_store, persona_of, run, spec_of
from deployments.cli.console import say, say_json, say_table

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="a version, for example jamie-0.2.0")]
Note = Annotated[str | None, typer.Option(help="why, for the record")]
By = Annotated[str | None, typer.Option(help="who decides; the user of this machine if not given")]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command()
def promote(
    persona: PersonaName,
    evaluation: Annotated[str | None, typer.Option(help="the newest one if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the gate decide on an evaluation; only what passed goes on stage (exit code 3 if it did not)."""
    from tasks.specs import PromoteSpec
    from tasks.storage.registry import latest_evaluation

    latest_evaluation(home_store(), persona_of(persona).name)
    from flows.promote import promote as flow
    from flows.texts import promotion_text

    report = run(flow, PromoteSpec(persona=persona, evaluation=evaluation))
    say_json(report.model_dump(mode="json")) if as_json else say(promotion_text(report))
    if report.state != "promoted":
        raise typer.Exit(3)


@app.command()
def approve(version: VersionName, note: Note = None, by: By = None, as_json: AsJson = False) -> None:
    """Put a version on stage that passed the gate and waits for a person."""
    _answer(version, approved=True, by=by, note=note, as_json=as_json)


@app.command()
def reject(version: VersionName, note: Note = None, by: By = None, as_json: AsJson = False) -> None:
    """Refuse a version that passed the gate and waits for a person."""
    _answer(version, approved=False, by=by, note=note, as_json=as_json)


def _answer(version: str, *, approved: bool, by: str | None, note: str | None, as_json: bool) -> None:
    from deployments.approval import answer

    report = answer(home_store(), version, approve=approved, by=by or _user(), note=note)
    if as_json:
        say_json(report.model_dump(mode="json"))
    else:
        say(f"{version} is {report.state} by {report.by}. On stage: {report.live or 'the base model'}.")


@app.command()
def rollback(
    persona: PersonaName,
    to: Annotated[str | None, typer.Option(help="a version; the one before the present if not given")] = None,
    force: Annotated[bool, typer.Option("--force", help="even one that no gate let pass")] = False,
    note: Note = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Put an earlier version back on stage; a running service follows at once."""
    from deployments.launch import telling
    from tasks.promote import roll_back

    name = persona_of(persona).name
    with telling():
        left, there = roll_back(home_store(), name, to, by=by or _user(), note=note, force=force)
    if as_json:
        say_json({"persona": name, "left": left, "live": there})
    elif left == there:
        say(f"{there or 'The base model'} is on stage already; nothing changed.")
    else:
        say(f"{name}: {left or 'the base model'} left the stage; on stage is {there or 'the base model'}.")


@app.command()
def versions(
    persona: Annotated[str | None, typer.Argument(help="only this persona's")] = None, as_json: AsJson = False
) -> None:
    """List the versions with their lineage and what the gate said."""
    from deployments.cli.listings import version_rows

    rows = version_rows(home_store(), persona)
    if persona and not rows:
        persona_of(persona)
    say_json(rows) if as_json else say_table(rows, empty="No version yet: `understudy pipeline PERSONA`.")


@app.command()
def diff(
    version: VersionName,
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="its parent if not given")] = None,
    questions: Annotated[int, typer.Option(help="held-out questions for both to answer; 0 for none")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two versions: scores, answers, persona, examples, settings."""
    from tasks.specs import DiffSpec

    spec = spec_of(DiffSpec, version=version, other=other, questions=questions)
    from deployments.cli.diff import show_diff

    show_diff(spec, as_json=as_json)


@app.command()
def personas(
    name: Annotated[str | None, typer.Argument(help="show this one as YAML")] = None, as_json: AsJson = False
) -> None:
    """List the personas there are, or show one as the YAML that defines it."""
    from agents.personas import persona_yaml
    from tasks.cast import cast

    if name:
        found = persona_of(name)
        say_json(found.model_dump(mode="json")) if as_json else say(persona_yaml(found))
        return
    rows: list[dict[str, object]] = [
        {"name": p.name, "type": p.agent_type, "description": p.description}
        for p in cast(home_store()).values()
    ]
    say_json(rows) if as_json else say_table(rows, empty="None ship.")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
) -> None:
    """Serve the base model, every version and every persona over an OpenAI-compatible endpoint."""
    from deployments.catalog import StoreCatalog
    from deployments.service.app import create_app
    from deployments.service.server import open_port, run_server

    store = home_store()
    catalog, keys = StoreCatalog(store), store.settings.keys
    if host not in LOOPBACK and not keys:
        raise InputError(
            f"Listening on {host} without a key would let anybody in.",
            "Set UNDERSTUDY_API_KEYS (comma-separated), or listen on 127.0.0.1.",
        )
    with open_port(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}/v1"
        say(f"Serving {len(catalog.models())} models on {address} (Ctrl-C stops).")
        run_server(create_app(catalog, keys=keys), listener)


def _user() -> str:
    from getpass import getuser

    return getuser()
