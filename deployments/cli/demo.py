"""The demo's command: what it asks for, and the report at its end.

Does not know anything that the other commands do not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from shutil import which

from deployments.cli.console import ProgressLine, say
from deployments.launch import run_flow
from flows.demo import demo
from flows.pipeline import PipelineReport, pipeline_text
from tasks.export import GenerateReport
from tasks.specs import GenerateSpec, PipelineSpec
from tasks.storage.calls import call_totals
from tasks.storage.jobs import loss_curve
from tasks.storage.registry import matches
from tasks.storage.store import Store, open_store

WRITTEN = "collaborative"
PLAYED = "jamie"


def run_demo(count: int) -> None:
    """Run the loop on the embedded model and print what came of it."""
    store, started = open_store(), time.monotonic()
    say(f"Home: {store.settings.home.absolute()}")
    say("Starting; the first run also converts the embedded model, which takes half a minute.")
    say(f"1. Write {count} synthetic examples for {WRITTEN!r}: idea → document → response.")
    say(f"2. Collect {PLAYED}'s conversations, fine-tune, evaluate on held-out ones, let the gate decide.\n")
    generate = GenerateSpec(
        name=f"demo-{count}", persona=WRITTEN, count=count, document_words=180, response_words=120
    )
    report = run_flow(
        demo, generate, PipelineSpec(persona=PLAYED), settings=store.settings, listen=ProgressLine()
    )
    _say_generated(report.generated)
    _say_pipeline(store, report.pipeline)
    totals = call_totals(store)
    say(
        f"\nThe ledger holds {totals.calls} model calls ({totals.completion_tokens} tokens written). "
        f"This run took {time.monotonic() - started:.0f} s; run it again and every finished call is replayed."
    )
    _say_next(report.pipeline.promotion.version)


def _say_generated(report: GenerateReport) -> None:
    say("\n── Synthetic examples " + "─" * 50)
    say(
        f"{report.accepted} of {report.requested} accepted, {report.dropped} dropped, "
        f"{report.failed} failed; answers that the quality checks refused on the way: {report.refused}."
    )
    say(f"{report.examples.parent}/")


def _say_pipeline(store: Store, report: PipelineReport) -> None:
    say("\n── Fine-tune, evaluation, gate " + "─" * 41)
    curve = [point.loss for point in loss_curve(store, report.job.id) if point.split == "train"]
    say(pipeline_text(report))
    if curve:
        say(f"\nTraining loss by step: {_sparkline(curve)} {curve[0]:.2f} → {curve[-1]:.2f}")
    found = matches(store, report.promotion.evaluation)
    if found:
        example = found[0]
        say(f"\nOne held-out question: {example.question}")
        say(f"  the person:  {example.reference}")
        say(f"  candidate:   {example.candidate_answer}")
        say(f"  baseline:    {example.baseline_answer}")


def _sparkline(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[int(7 * (value - low) / span)] for value in values)


def _say_next(version: str) -> None:
    say("\n── Try next " + "─" * 60)
    command = "understudy" if which("understudy") else os.path.relpath(sys.argv[0])
    say(f"{command} versions     the registry, with lineage")
    say(f"{command} status       the jobs; add a job's id for its losses and events")
    say(f"{command} serve        an OpenAI-compatible endpoint; then, in another terminal:")
    body = {"model": version, "messages": [{"role": "user", "content": "The heating is off again."}]}
    say("curl -s http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\")
    say(f"  -d '{json.dumps(body)}'")
