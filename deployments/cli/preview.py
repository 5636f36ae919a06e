"""The preview of a generation: a few examples to read and rate, and guidance refined until they are right.

Does not know how examples are written. What a preview wrote is not learned from; the run that follows with
the same guidance finds its calls in the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from agents.schemas import fingerprint
from deployments.cli.console import ProgressLine, say
from tasks.specs import GenerateSpec
from tasks.storage.objects import write_lines

EXAMPLES = 5


def refine(spec: GenerateSpec) -> GenerateSpec:
    """Show examples of a run and ask about each, with other guidance until the user wants the run.

    Returns the spec with the guidance that was settled on; the answers lie beside the preview's files. Raises
    typer.Abort when the user stops or there is nobody to answer.
    """
    while True:
        details, folder = _write(spec)
        ratings = [_rate(number, detail) for number, detail in enumerate(details, 1)]
        write_lines(folder / "ratings.jsonl", (json.dumps(row, ensure_ascii=False) for row in ratings))
        good = sum(row["good"] for row in ratings)
        say(f"\n{good} of {len(ratings)} are good.")
        guidance = typer.prompt("Guidance for the models", default=_proposal(spec, ratings)).strip() or None
        if guidance == spec.guidance and typer.confirm(f"Write {spec.count} examples so?", default=True):
            return spec
        if guidance != spec.guidance:
            say("Written again with that.")
        spec = spec.model_copy(update={"guidance": guidance})


def preview_spec(spec: GenerateSpec) -> GenerateSpec:
    """Return the preview of a run; other guidance is another one."""
    name = f"{spec.name[:44]}-preview-{fingerprint(spec.guidance or '')[:6]}"
    fields: dict[str, Any] = {"name": name, "count": min(EXAMPLES, spec.count), "preview": True}
    return spec.model_copy(update=fields)


def _write(spec: GenerateSpec) -> tuple[list[dict[str, Any]], Path]:
    from deployments.launch import run_flow
    from flows.generate import generate
    from tasks.storage.store import open_store

    report = run_flow(generate, preview_spec(spec), settings=open_store().settings, listen=ProgressLine())
    if report.accepted < report.requested:
        say(f"Only {report.accepted} of {report.requested} were accepted; {report.card} says why.")
    return json.loads(report.detailed.read_text()), report.detailed.parent


def _rate(number: int, detail: dict[str, Any]) -> dict[str, Any]:
    """Show an example and ask whether it is good."""
    _, document, response = (message["content"] for message in detail["messages"])
    say(f"\n── {number}: {detail['category']}, {detail['document_type']} ──\n{document}\n\n→ {response}\n")
    good = typer.confirm("Good?", default=True)
    note = "" if good else typer.prompt("What should be different", default="", show_default=False).strip()
    return {"document_id": detail["document_id"], "good": good, "note": note}


def _proposal(spec: GenerateSpec, ratings: Sequence[dict[str, Any]]) -> str:
    """Return the guidance so far with the notes that are new."""
    notes = dict.fromkeys(row["note"] for row in ratings if row["note"])
    return " ".join(part for part in (spec.guidance or "", *notes) if part)
