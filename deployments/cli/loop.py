"""Commands of the loop: fine-tune, watch, evaluate, all of it.

Does not know how anything is done: read the arguments, hand a spec to a flow, print what it returned.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deployments.cli.app import (
    AsJson,
    Epochs,
    Judge,
    LearningRate,
    OneJob,
    PersonaName,
    app,
    home_store,
    persona_of,
    run,
    spec_of,
)
from deployments.cli.console import say, say_json, say_table

Rank = Annotated[int | None, typer.Option(help="LoRA rank")]


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=1, max=1000, help="synthetic examples to write")] = 4,
) -> None:
    """Run the whole loop for real on the embedded model: no key, no server, a few minutes."""
    from deployments.cli.demo import run_demo

    run_demo(count)


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
    from flows.collect import collect
    from flows.finetune import finetune as flow
    from tasks.finetune import hyperparameters, open_backend
    from tasks.specs import FinetuneSpec

    found = persona_of(persona)
    given = {"epochs": epochs, "learning_rate": learning_rate, "rank": rank}
    overrides = {key: value for key, value in given.items() if value is not None}
    hyperparameters(open_backend(backend), overrides)
    spec = spec_of(FinetuneSpec, persona=persona, backend=backend, hyperparameters=overrides, wait=wait)

    async def story() -> Any:
        if found.data.source != "synthetic":
            await collect(persona)
        return await flow(spec)

    report = run(story)
    _say_jobs([report], as_json=as_json)
    _fail_unless_completed([report])


@app.command()
def watch(job: OneJob = None, as_json: AsJson = False) -> None:
    """Follow a job, or all open ones, to their end."""
    from tasks.storage.jobs import get_job

    if job:
        get_job(home_store(), job)
    from flows.watch import watch as flow
    from tasks.specs import WatchSpec

    reports = run(flow, WatchSpec(job=job, follow=True))
    _say_jobs(reports, as_json=as_json)
    _fail_unless_completed(reports)


@app.command()
def evaluate(
    persona: PersonaName,
    job: Annotated[str | None, typer.Option(help="the newest completed one if not given")] = None,
    judge: Judge = None,
    as_json: AsJson = False,
) -> None:
    """Hold the newest tuned model against what is live, on conversations that it never saw."""
    from tasks.rate import newest_completed
    from tasks.specs import EvaluateSpec

    found = persona_of(persona)
    spec = spec_of(
        EvaluateSpec,
        persona=persona,
        job=job or newest_completed(home_store(), found.name),
        judge=judge,
    )
    from flows.evaluate import evaluate as flow
    from flows.texts import evaluation_text

    contest, report = run(flow, spec)
    if as_json:
        say_json({"evaluation": contest.id, **report.model_dump(mode="json")})
    else:
        say(f"Evaluation {contest.id}\n\n{evaluation_text(report)}")


@app.command()
def retrain(persona: PersonaName, judge: Judge = None, as_json: AsJson = False) -> None:
    """Train, judge and decide anew if anything changed since the last round; otherwise say so."""
    from flows.retrain import retrain as flow
    from flows.texts import promotion_text
    from tasks.specs import RetrainSpec

    persona_of(persona)
    report = run(flow, spec_of(RetrainSpec, persona=persona, judge=judge, follow=True))[0]
    if as_json:
        say_json(report.model_dump(mode="json") | {"sentence": report.sentence})
        return
    say(report.sentence)
    if report.promotion:
        say("\n" + promotion_text(report.promotion))


@app.command()
def pipeline(
    persona: PersonaName,
    generate: Annotated[int, typer.Option(min=0, help="synthetic examples to write first")] = 0,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    judge: Judge = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole loop for one persona: data, fine-tune, evaluation, gate."""
    from flows.pipeline import pipeline as flow
    from flows.pipeline import pipeline_text
    from tasks.specs import GenerateSpec, PipelineSpec

    slug = persona_of(persona).name
    given = {"epochs": epochs, "learning_rate": learning_rate}
    written = None
    if generate:
        written = spec_of(GenerateSpec, name=f"{slug}-{generate}-0", persona=persona, count=generate)
    spec = spec_of(
        PipelineSpec,
        persona=persona,
        generate=written,
        finetune={key: value for key, value in given.items() if value is not None},
        judge=judge,
    )
    report = run(flow, spec)
    say_json(report.model_dump(mode="json")) if as_json else say(pipeline_text(report))


def _say_jobs(reports: list[Any], *, as_json: bool) -> None:
    rows = [report.model_dump(mode="json", exclude={"before", "moved"}) for report in reports]
    say_json(rows) if as_json else say_table(rows, empty="No open job.")


def _fail_unless_completed(reports: list[Any]) -> None:
    if any(report.ended and report.status != "completed" for report in reports):
        raise typer.Exit(1)
