"""The commands, one function each: read the arguments, hand a spec to a flow, print what it returned.

Does not know how anything is done. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agents.errors import InputError
from deployments.cli.console import ProgressLine, say, say_json, say_table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tasks.storage.store import Store

app = typer.Typer(
    help="Train small models to play a role, prove they play it better, only then put them on stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
PersonaName = Annotated[str, typer.Argument(metavar="PERSONA", help="a name, or the path of a YAML file")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for a script")]
Judge = Annotated[str, typer.Option(help="a judge plugin, or model:ADDRESS")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="a model address; repeat it for a fallback chain")
]
Epochs = Annotated[int | None, typer.Option(help="passes over the examples")]
LearningRate = Annotated[float | None, typer.Option(help="peak learning rate")]
Rank = Annotated[int | None, typer.Option(help="LoRA rank")]
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


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=1, max=1000, help="synthetic examples to write")] = 4,
) -> None:
    """Run the whole loop for real on the embedded model: no key, no server, a few minutes."""
    from deployments.cli.demo import run_demo

    run_demo(count)


@app.command()
def generate(
    persona: PersonaName,
    name: Annotated[str | None, typer.Option(help="the run's name; PERSONA-COUNT-SEED if not given")] = None,
    count: Annotated[int, typer.Option(help="examples to write")] = 10,
    seed: Annotated[int, typer.Option(help="another seed writes other examples")] = 0,
    models: Models = None,
    document_words: Annotated[int, typer.Option(help="words of a document to ask for")] = 700,
    response_words: Annotated[int, typer.Option(help="words of a response to ask for")] = 250,
    as_json: AsJson = False,
) -> None:
    """Write synthetic examples for a persona: ideas, documents, responses."""
    from agents.personas import load_persona
    from tasks.policies import FallbackChain
    from tasks.specs import EMBEDDED, GenerateSpec

    slug = load_persona(persona).name
    _check_models(models or [])
    chain = FallbackChain.of(models or [EMBEDDED])
    spec = _spec(
        GenerateSpec,
        name=name or f"{slug}-{count}-{seed}",
        persona=persona,
        count=count,
        seed=seed,
        writers=chain,
        actors=chain,
        document_words=document_words,
        response_words=response_words,
    )
    from flows.generate import generate as flow

    report = _run(flow, spec)
    if as_json:
        say_json(report.model_dump(mode="json"))
        raise typer.Exit(0 if report.accepted else 1)
    say(
        f"{report.accepted} of {report.requested} examples accepted, {report.dropped} dropped, "
        f"{report.failed} failed, {report.refused} answers refused on the way."
    )
    say(f"{report.examples}\n{report.detailed}\n{report.metadata}")
    if not report.accepted:
        raise typer.Exit(1)


@app.command()
def simulate(
    plan: Annotated[str, typer.Option(help="a plan, or the path of a YAML file")] = "focused-2000",
    total: Annotated[int | None, typer.Option(help="conversations; if not given the plan's")] = None,
    name: Annotated[str | None, typer.Option(help="the run's name; PLAN-TOTAL-SEED if not given")] = None,
    seed: Annotated[int, typer.Option(help="another seed writes other conversations")] = 0,
    models: Models = None,
    base_model: Annotated[str | None, typer.Option(help="the model to train; it counts tokens")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, write nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Write conversations among workplace personas to a plan, and an example of each from every side."""
    from agents.plans import load_plan
    from deployments.cli.simulate import run_simulation
    from tasks.policies import FallbackChain
    from tasks.specs import EMBEDDED, SimulateSpec

    found, chain, base = load_plan(plan), models or [EMBEDDED], base_model or EMBEDDED
    _check_models([*chain, base])
    name = name or f"{found.name}-{found.total if total is None else total}-{seed}"
    fields = {"name": name, "plan": plan, "total": total, "seed": seed, "base_model": base}
    spec = _spec(SimulateSpec, **fields, writers=FallbackChain.of(chain))
    run_simulation(spec, dry_run=dry_run, as_json=as_json)


@app.command()
def finetune(
    persona: PersonaName,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    rank: Rank = None,
    backend: Annotated[str, typer.Option(help="a training backend plugin")] = "local",
    wait: Annotated[bool, typer.Option(help="follow the job; otherwise `watch` does")] = True,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a persona's base model on its examples; the same data and settings make the same job."""
    from agents.personas import load_persona
    from flows.collect import collect
    from flows.finetune import finetune as flow
    from tasks.finetune import hyperparameters, open_backend
    from tasks.specs import FinetuneSpec

    found = load_persona(persona)
    given = {"epochs": epochs, "learning_rate": learning_rate, "rank": rank}
    overrides = {key: value for key, value in given.items() if value is not None}
    hyperparameters(open_backend(backend), overrides)
    spec = _spec(FinetuneSpec, persona=persona, backend=backend, hyperparameters=overrides, wait=wait)

    async def story() -> Any:
        if found.data.source != "synthetic":
            await collect(persona)
        return await flow(spec)

    report = _run(story)
    _say_jobs([report], as_json=as_json)
    _fail_unless_completed([report])


@app.command()
def watch(job: OneJob = None, as_json: AsJson = False) -> None:
    """Follow a job, or all open ones, to their end."""
    from tasks.storage.jobs import get_job

    if job:
        get_job(_store(), job)
    from flows.watch import watch as flow
    from tasks.specs import WatchSpec

    reports = _run(flow, WatchSpec(job=job, follow=True))
    _say_jobs(reports, as_json=as_json)
    _fail_unless_completed(reports)


@app.command()
def status(job: OneJob = None, as_json: AsJson = False) -> None:
    """Show the jobs as last seen, or one with its events and losses; nothing is polled."""
    from deployments.cli.listings import job_details, job_rows

    if job:
        details = job_details(_store(), job)
        say_json(details) if as_json else _say_details(details)
        return
    rows = job_rows(_store())
    say_json(rows) if as_json else say_table(rows, empty="No job yet: `understudy finetune PERSONA`.")


@app.command()
def evaluate(
    persona: PersonaName,
    job: Annotated[str | None, typer.Option(help="the newest completed one if not given")] = None,
    judge: Judge = "reference",
    as_json: AsJson = False,
) -> None:
    """Hold the newest tuned model against what is live, on conversations that it never saw."""
    from agents.personas import load_persona
    from tasks.rate import newest_completed
    from tasks.specs import EvaluateSpec

    found = load_persona(persona)
    spec = _spec(
        EvaluateSpec,
        persona=persona,
        job=job or newest_completed(_store(), found.name),
        judge=judge,
    )
    from flows.evaluate import evaluate as flow
    from flows.texts import evaluation_text

    contest, report = _run(flow, spec)
    if as_json:
        say_json({"evaluation": contest.id, **report.model_dump(mode="json")})
    else:
        say(f"Evaluation {contest.id}\n\n{evaluation_text(report)}")


@app.command()
def promote(
    persona: PersonaName,
    evaluation: Annotated[str | None, typer.Option(help="the newest one if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Let the gate decide on an evaluation; only what passed goes on stage (exit code 3 if it did not)."""
    from agents.personas import load_persona
    from tasks.specs import PromoteSpec
    from tasks.storage.registry import latest_evaluation

    latest_evaluation(_store(), load_persona(persona).name)
    from flows.promote import promote as flow
    from flows.texts import promotion_text

    report = _run(flow, PromoteSpec(persona=persona, evaluation=evaluation))
    say_json(report.model_dump(mode="json")) if as_json else say(promotion_text(report))
    if report.decision.verdict != "pass":
        raise typer.Exit(3)


@app.command()
def pipeline(
    persona: PersonaName,
    generate: Annotated[int, typer.Option(min=0, help="synthetic examples to write first")] = 0,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    judge: Judge = "reference",
    as_json: AsJson = False,
) -> None:
    """Run the whole loop for one persona: data, fine-tune, evaluation, gate."""
    from agents.personas import load_persona
    from flows.pipeline import pipeline as flow
    from flows.pipeline import pipeline_text
    from tasks.specs import GenerateSpec, PipelineSpec

    slug = load_persona(persona).name
    given = {"epochs": epochs, "learning_rate": learning_rate}
    written = None
    if generate:
        written = _spec(GenerateSpec, name=f"{slug}-{generate}-0", persona=persona, count=generate)
    spec = _spec(
        PipelineSpec,
        persona=persona,
        generate=written,
        finetune={key: value for key, value in given.items() if value is not None},
        judge=judge,
    )
    report = _run(flow, spec)
    say_json(report.model_dump(mode="json")) if as_json else say(pipeline_text(report))


@app.command()
def versions(
    persona: Annotated[str | None, typer.Argument(help="only this persona's")] = None, as_json: AsJson = False
) -> None:
    """List the versions with their lineage and what the gate said."""
    from deployments.cli.listings import version_rows

    rows = version_rows(_store(), persona)
    if persona and not rows:
        from agents.personas import load_persona

        load_persona(persona)
    say_json(rows) if as_json else say_table(rows, empty="No version yet: `understudy pipeline PERSONA`.")


@app.command()
def personas(
    name: Annotated[str | None, typer.Argument(help="show this one as YAML")] = None, as_json: AsJson = False
) -> None:
    """List the personas that ship, or show one as the YAML that defines it."""
    from agents.personas import load_persona, persona_yaml, shipped_personas

    if name:
        found = load_persona(name)
        say_json(found.model_dump(mode="json")) if as_json else say(persona_yaml(found))
        return
    rows: list[dict[str, object]] = [
        {"name": p.name, "type": p.agent_type, "description": p.description}
        for p in map(load_persona, shipped_personas())
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

    store = _store()
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


def _store() -> Store:
    from tasks.storage.store import open_store

    return open_store()


def _run(flow: Callable[..., Coroutine[Any, Any, Result]], *args: object) -> Result:
    from deployments.launch import run_flow

    return run_flow(flow, *args, settings=_store().settings, listen=ProgressLine())


def _spec(kind: type[BaseModel], **fields: Any) -> Any:
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise InputError(
            f"--{name}: {first['msg']}, got {first['input']!r}.", "`--help` says what it takes."
        ) from error


def _check_models(addresses: list[str]) -> None:
    from agents.chat import parse_address
    from agents.plugins import load_plugin

    for address in addresses:
        load_plugin("models", parse_address(address).provider)


def _say_jobs(reports: list[Any], *, as_json: bool) -> None:
    rows = [report.model_dump(mode="json", exclude={"before", "moved"}) for report in reports]
    say_json(rows) if as_json else say_table(rows, empty="No open job.")


def _fail_unless_completed(reports: list[Any]) -> None:
    if any(report.ended and report.status != "completed" for report in reports):
        raise typer.Exit(1)


def _say_details(details: dict[str, Any]) -> None:
    for name, value in details.items():
        if isinstance(value, list):
            say(f"\n{name}")
            say_table(value, empty="none")
        else:
            say(f"{name:16} {'' if value is None else value}")
