"""Commands of data: write examples, pairs and conversations, or bring in real ones.

Does not know how anything is done: read the arguments, hand a spec to a flow, print what it returned.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.errors import InputError
from deployments.cli.app import AsJson, PersonaName, app, home_store, persona_of, run, spec_of
from deployments.cli.console import say, say_json, say_table

if TYPE_CHECKING:
    from tasks.export import GenerateReport
    from tasks.policies import FallbackChain

Models = Annotated[
    list[str] | None, typer.Option("--model", help="a model address; repeat it for a fallback chain")
]


@app.command()
def generate(
    persona: PersonaName,
    name: Annotated[str | None, typer.Option(help="the run's name; PERSONA-COUNT-SEED if not given")] = None,
    count: Annotated[int, typer.Option(help="examples to write")] = 10,
    seed: Annotated[int, typer.Option(help="another seed writes other examples")] = 0,
    models: Models = None,
    chain: Annotated[str | None, typer.Option(help="models by name, from tasks/chains.yaml: quality")] = None,
    document_words: Annotated[int, typer.Option(help="words of a document to ask for")] = 700,
    response_words: Annotated[int, typer.Option(help="words of a response to ask for")] = 250,
    budget: Annotated[float | None, typer.Option(help="US dollars; stop before it costs more")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="show calls, tokens, cost; ask nothing")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="begin even if the budget will not do")] = False,
    trait_judge: Annotated[
        str | None, typer.Option(help="a model that refuses responses which lack a trait")
    ] = None,
    guidance: Annotated[str | None, typer.Option(help="what every prompt says besides")] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="first write 5, to rate them and refine the guidance")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write synthetic examples for a persona: ideas, documents, responses."""
    from deployments.cli.estimate import agree, say_estimate
    from tasks.specs import GenerateSpec

    if preview and as_json:
        raise InputError("--preview asks questions, --json is for scripts.", "Give --guidance instead.")
    slug = persona_of(persona).name
    writers, actors = _chains(models, chain)
    if trait_judge:
        _check_models([trait_judge])
    spec = spec_of(
        GenerateSpec,
        name=name or _run_name(slug, count, seed, guidance),
        persona=persona,
        count=count,
        seed=seed,
        writers=writers,
        actors=actors,
        document_words=document_words,
        response_words=response_words,
        budget=budget,
        trait_judge=trait_judge,
        guidance=guidance,
    )
    if estimate:
        say_estimate(home_store(), spec, as_json=as_json)
        return
    if preview:
        from deployments.cli.preview import refine

        spec = refine(spec)
        own = name or _run_name(slug, count, seed, spec.guidance)
        spec = spec.model_copy(update={"name": own})
    agree(home_store(), spec, yes=yes)
    from flows.generate import generate as flow

    _say_written(run(flow, spec), as_json=as_json)


@app.command()
def pairs(
    persona: PersonaName,
    source: Annotated[
        str | None, typer.Option("--run", help="prompts from this generation run; else the constitution's")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="the run's name; made of the prompts' if not given")
    ] = None,
    count: Annotated[int, typer.Option(help="questions to write from the constitution")] = 100,
    seed: Annotated[int, typer.Option(help="another seed writes other questions and answers")] = 0,
    models: Models = None,
    student: Annotated[
        str | None, typer.Option(help="whose answers are rejected; else the base model")
    ] = None,
    words: Annotated[int, typer.Option(help="most words of an answer")] = 250,
    system: Annotated[
        bool, typer.Option("--system", help="prompts with the persona's system prompt")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write preference pairs: the persona's answer chosen, the untuned base model's own rejected."""
    from tasks.pairs import newest_run
    from tasks.policies import FallbackChain
    from tasks.specs import EMBEDDED, PairSpec

    found = persona_of(persona)
    _check_models([*(models or []), student or found.base_model])
    if source is None and not found.constitution:
        source = newest_run(home_store(), found.name)
    chain = FallbackChain.of(models or [EMBEDDED])
    spec = spec_of(
        PairSpec,
        name=name or f"{source or f'{found.name}-{count}'}-pairs-{seed}",
        persona=persona,
        source=source,
        count=count,
        seed=seed,
        student=student,
        writers=chain,
        actors=chain,
        words=words,
        system=system,
    )
    from flows.pairs import pairs as flow

    report = run(flow, spec)
    if as_json:
        say_json(report.model_dump(mode="json"))
        raise typer.Exit(0 if report.accepted else 1)
    say(f"{report.accepted} of {report.requested} pairs; {report.dropped} dropped, {report.failed} failed.")
    say_table([{"refused": why, "times": times} for why, times in report.reasons.items()], empty="")
    say(f"{report.pairs}\n{report.card}")
    raise typer.Exit(0 if report.accepted else 1)


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
    spec = spec_of(SimulateSpec, **fields, writers=FallbackChain.of(chain))
    run_simulation(spec, dry_run=dry_run, as_json=as_json)


@app.command()
def collect(
    persona: PersonaName,
    file: Annotated[Path | None, typer.Option(help="JSONL; the persona's own if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in real conversations of a persona, each once, as examples."""
    from flows.collect import collect as flow

    persona_of(persona)
    report = run(flow, persona, file.resolve() if file else None)
    if as_json:
        say_json(report.model_dump(mode="json"))
    else:
        say(f"{report.added} of {report.read} conversations in {report.file} are new.")


def _say_written(report: GenerateReport, *, as_json: bool) -> None:
    if as_json:
        say_json(report.model_dump(mode="json"))
        raise typer.Exit(0 if report.accepted and not report.stopped else 1)
    say(
        f"{report.accepted} of {report.requested} examples accepted, {report.dropped} dropped, "
        f"{report.failed} failed, {report.refused} answers refused on the way."
    )
    say(f"{report.examples}\n{report.detailed}\n{report.metadata}")
    if report.stopped:
        say(report.stopped)
    if report.stopped or not report.accepted:
        raise typer.Exit(1)


def _run_name(slug: str, count: int, seed: int, guidance: str | None) -> str:
    from agents.schemas import fingerprint

    return f"{slug}-{count}-{seed}" + (f"-{fingerprint(guidance)[:6]}" if guidance else "")


def _chains(models: list[str] | None, name: str | None) -> tuple[FallbackChain, FallbackChain]:
    """Return the chains of writers and actors; raise InputError for what cannot be asked."""
    from tasks.chains import find_chain
    from tasks.policies import FallbackChain

    if models and name:
        raise InputError(f"--model {models[0]} and --chain {name} exclude each other.", "Give one of them.")
    chain = FallbackChain.of(models) if models else None
    writers, actors = (chain, chain) if chain else find_chain(name or "embedded")
    _check_models([rung.model for rung in (*writers.rungs, *actors.rungs)])
    return writers, actors


def _check_models(addresses: list[str]) -> None:
    from tasks.chains import check_models

    check_models(addresses)
