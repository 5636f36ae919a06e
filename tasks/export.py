"""Export a generation run: examples into the store, and its three files, which are functions of the rows.

Does not know how the rows came to be. Exporting twice gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import task
from pydantic import Field

from agents.scenarios import load_scenarios
from agents.schemas import Frozen, Messages, chat, chat_line, fingerprint, with_system
from agents.tariffs import total_cost
from tasks.cast import find_persona
from tasks.generate import STAGES
from tasks.rounds import examples_arrived
from tasks.specs import GenerateSpec
from tasks.storage.drafts import Stage, drafts
from tasks.storage.examples import dump_messages
from tasks.storage.objects import write_lines, write_text
from tasks.storage.store import open_store
from tasks.storage.tables import Draft, Example, now

Drafts = Mapping[Stage, Mapping[int, Draft]]


class GenerateReport(Frozen):
    """What a run came to; `refused` counts asks that were refused and asked again or dropped."""

    name: str
    persona: str
    requested: int
    accepted: int
    dropped: int
    failed: int
    refused: int
    completion_tokens: int
    model_seconds: float
    cost: float | None = Field(default=0.0, description="US dollars; none where a price is not known")
    stopped: str = Field(default="", description="why the run stopped before its end")
    examples: Path
    detailed: Path
    metadata: Path


@task(name="export-run", task_run_name="export[{spec.name}]")
def export_run(spec: GenerateSpec) -> GenerateReport:
    """Keep the accepted examples and write `X.jsonl`, `X_detailed.json` and `X_metadata.json`.

    Raises StorageError, leaving the files as they were, when they cannot be written.
    """
    store = open_store()
    rows: Drafts = {stage: drafts(store, spec.name, stage) for stage in STAGES}
    persona = find_persona(store, spec.persona)
    accepted = dict(_accepted(rows))
    added = store.add_rows(
        [_example(spec, persona.name, position, messages) for position, messages in accepted.items()]
    )
    examples_arrived(store, persona.name, sum(added))
    accepted = {at: with_system(persona, messages) for at, messages in accepted.items()}
    folder = store.settings.objects / "runs" / spec.name
    metadata = _metadata(spec, rows)
    report = GenerateReport(
        name=spec.name,
        persona=spec.persona,
        requested=spec.count,
        **metadata["counts"],
        completion_tokens=metadata["tokens"]["completion"],
        model_seconds=metadata["durations"]["model_seconds"],
        cost=metadata["cost"],
        examples=folder / f"{spec.name}.jsonl",
        detailed=folder / f"{spec.name}_detailed.json",
        metadata=folder / f"{spec.name}_metadata.json",
    )
    details = [_detail(spec, position, messages, rows) for position, messages in accepted.items()]
    write_lines(report.examples, (json.dumps(chat_line(m), ensure_ascii=False) for m in accepted.values()))
    write_text(report.detailed, _pretty(details))
    write_text(report.metadata, _pretty(metadata))
    return report


def _accepted(rows: Drafts) -> Iterator[tuple[int, Messages]]:
    for position, response in rows["response"].items():
        if response.status == "accepted":
            document = rows["document"][position].text
            yield position, chat(("user", document), ("assistant", response.text))


def _example(spec: GenerateSpec, persona: str, position: int, messages: Messages) -> Example:
    return Example(
        id=fingerprint(spec.name, str(position)),
        persona=persona,
        source="synthetic",
        origin=f"{spec.name}:{position}",
        category=load_scenarios().situation(position, spec.seed)[0].name,
        messages=dump_messages(messages),
        created_at=now(),
    )


def _detail(spec: GenerateSpec, position: int, messages: Messages, rows: Drafts) -> dict[str, Any]:
    stages = {stage: rows[stage][position] for stage in STAGES}
    return {
        **chat_line(messages),
        "document_id": fingerprint(stages["document"].text),
        "title": _title(stages["document"].text),
        "category": load_scenarios().situation(position, spec.seed)[0].name,
        "document_type": load_scenarios().document_type(position),
        "idea": stages["idea"].text,
        "words": {stage: len(row.text.split()) for stage, row in stages.items()},
        "models": {stage: row.model for stage, row in stages.items()},
        "attempts": {stage: row.attempts for stage, row in stages.items()},
        "cost": total_cost(row.cost for row in stages.values()),
        "created_at": stages["response"].created_at,
    }


def _title(document: str) -> str:
    lines = [line.strip(" #*") for line in document.splitlines() if line.strip(" #*")]
    subjects = [line.split(":", 1)[1].strip(" *") for line in lines if line.lower().startswith("subject:")]
    return (subjects + lines)[0][:120]


def _metadata(spec: GenerateSpec, rows: Drafts) -> dict[str, Any]:
    every = [row for stage in STAGES for row in rows[stage].values()]
    accepted = sum(row.status == "accepted" for row in rows["response"].values())
    dropped = [row for row in every if row.status == "dropped"]
    failed = [row for row in every if row.status == "failed"]
    return {
        "parameters": spec.model_dump(mode="json"),
        "counts": {
            "accepted": accepted,
            "dropped": len(dropped),
            "failed": len(failed),
            "refused": sum(
                row.attempts - (row.status == "accepted") for row in every if row.status != "failed"
            ),
        },
        "failures": [
            {
                "position": row.position,
                "stage": row.stage,
                "status": row.status,
                "reasons": json.loads(row.reasons),
            }
            for row in sorted(dropped + failed, key=lambda row: row.position)
        ],
        "tokens": {
            "prompt": sum(row.prompt_tokens for row in every),
            "completion": sum(row.completion_tokens for row in every),
        },
        "cost": total_cost(row.cost for row in every),
        "durations": {
            "model_seconds": round(sum(row.seconds for row in every), 3),
            "started_at": min((row.created_at for row in every), default=None),
            "finished_at": max((row.created_at for row in every), default=None),
        },
    }


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
