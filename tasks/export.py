"""Export a generation run: examples into the store, and its files, which are functions of the rows.

Does not know how the rows came to be. Exporting twice gives the same bytes, in memory that does not grow
with the run: it is read once, a page of positions at a time, and all files are written along the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from prefect import task
from pydantic import Field
from pydantic_core import to_json

from agents.scenarios import load_scenarios
from agents.schemas import Frozen, Messages, Persona, chat, chat_line, fingerprint, with_system
from agents.tariffs import total_cost
from tasks.card import run_card, run_facts
from tasks.card_text import card_text
from tasks.cast import find_persona
from tasks.generate import STAGES
from tasks.rounds import examples_arrived
from tasks.specs import GenerateSpec
from tasks.storage.drafts import Piece, Pieces
from tasks.storage.examples import dump_messages
from tasks.storage.objects import whole_file, write_text
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Example, now
from tasks.tally import Facts, Tally, pages

ENDINGS = {
    "examples": ".jsonl",
    "detailed": "_detailed.json",
    "metadata": "_metadata.json",
    "card": "_card.md",
}
Write = Callable[[Any], object]


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
    card: Path


class Outputs(NamedTuple):
    """Where to write the lines, details and failures of a run."""

    run: str
    line: Write
    detail: Write
    failure: Write


@task(name="export-run", task_run_name="export[{spec.name}]")
def export_run(spec: GenerateSpec) -> GenerateReport:
    """Keep the accepted examples; write `X.jsonl`, `X_detailed.json`, `X_metadata.json` and `X_card.md`.

    Raises StorageError, leaving the files as they were, when they cannot be written.
    """
    store = open_store()
    folder = store.settings.objects / "runs" / spec.name
    paths = {kind: folder / f"{spec.name}{ending}" for kind, ending in ENDINGS.items()}
    persona = find_persona(store, spec.persona)
    tally = _write_run(store, spec, persona, paths)
    write_text(paths["card"], card_text(run_card(spec.name, persona.name, spec.count, tally)))
    return GenerateReport(
        name=spec.name,
        persona=spec.persona,
        requested=spec.count,
        **_counts(tally),
        completion_tokens=int(tally.total("completion_tokens")),
        model_seconds=round(tally.total("seconds"), 3),
        cost=tally.cost,
        **paths,
    )


def _write_run(store: Store, spec: GenerateSpec, persona: Persona, paths: Mapping[str, Path]) -> Tally:
    """Write the files in one pass over the run, the examples of each page with it; return what it came to."""
    tally, added = Tally(), 0
    order = [scenario.name for scenario in load_scenarios().order(spec.seed)]
    try:
        with (
            whole_file(paths["examples"]) as lines,
            whole_file(paths["detailed"]) as detailed,
            whole_file(paths["metadata"]) as metadata,
        ):
            metadata.write(_pretty({"parameters": spec.model_dump(mode="json")}).removesuffix("\n}"))
            metadata.write(',\n  "failures": ')
            with json_array(detailed) as detail, json_array(metadata, indent="  ") as failure:
                outputs = Outputs(run=spec.name, line=lines.write, detail=detail, failure=failure)
                for page in pages(store, spec.name):
                    rows = [
                        _example(spec, persona, position, messages, order)
                        for position, messages in _write_page(persona, page, order, tally, outputs)
                    ]
                    added += sum(store.add_values(Example, rows)) if not spec.preview else 0
            metadata.write(",\n" + _pretty(_sums(tally)).removeprefix("{\n"))
    finally:
        examples_arrived(store, persona.name, added)
    return tally


def _write_page(
    persona: Persona, page: Mapping[int, Pieces], order: list[str], tally: Tally, outputs: Outputs
) -> Iterator[tuple[int, Messages]]:
    """Write what a page of positions came to; yield the positions that were accepted, with their messages."""
    for position, pieces in page.items():
        tally.add(pieces)
        for stage in STAGES:
            if stage in pieces and pieces[stage].status != "accepted":
                outputs.failure(_failure(pieces[stage]))
        if "response" not in pieces or pieces["response"].status != "accepted":
            continue
        messages = chat(("user", pieces["document"].text), ("assistant", pieces["response"].text))
        line = chat_line(with_system(persona, messages))
        facts = run_facts(outputs.run, pieces, order)
        tally.example(facts)
        outputs.line(json.dumps(line, ensure_ascii=False) + "\n")
        outputs.detail(_detail(pieces, facts, line))
        yield position, messages


def _example(
    spec: GenerateSpec, persona: Persona, position: int, messages: Messages, order: list[str]
) -> dict[str, Any]:
    """Return a row of `examples`."""
    return {
        "id": fingerprint(spec.name, str(position)),
        "persona": persona.name,
        "source": "synthetic",
        "origin": f"{spec.name}:{position}",
        "category": order[position % len(order)],
        "messages": dump_messages(messages),
        "round": None,
        "created_at": now(),
    }


def _detail(pieces: Pieces, facts: Facts, line: Mapping[str, Any]) -> dict[str, Any]:
    stages = {stage: pieces[stage] for stage in STAGES}
    document = stages["document"].text
    return {
        **line,
        "document_id": fingerprint(document),
        "title": _title(document),
        "category": facts.category,
        "document_type": facts.kind,
        "idea": stages["idea"].text,
        "words": dict(facts.words),
        "models": {stage: piece.model for stage, piece in stages.items()},
        "attempts": {stage: piece.attempts for stage, piece in stages.items()},
        "cost": total_cost(piece.cost for piece in stages.values()),
        "created_at": stages["response"].created_at,
    }


def _title(document: str) -> str:
    lines = [line.strip(" #*") for line in document.splitlines() if line.strip(" #*")]
    subjects = [line.split(":", 1)[1].strip(" *") for line in lines if line.lower().startswith("subject:")]
    return (subjects + lines)[0][:120]


def _failure(piece: Piece) -> dict[str, Any]:
    names = {"position": piece.position, "stage": piece.stage, "status": piece.status}
    return {**names, "reasons": json.loads(piece.reasons)}


def _counts(tally: Tally) -> dict[str, int]:
    return {name: getattr(tally, name) for name in ("accepted", "dropped", "failed", "refused")}


def _sums(tally: Tally) -> dict[str, Any]:
    tokens = {name: int(tally.total(f"{name}_tokens")) for name in ("prompt", "completion")}
    times = {"started_at": tally.started_at, "finished_at": tally.finished_at}
    return {
        "counts": _counts(tally),
        "tokens": tokens,
        "cost": tally.cost,
        "durations": {"model_seconds": round(tally.total("seconds"), 3), **times},
    }


@contextmanager
def json_array(file: TextIO, *, indent: str = "") -> Iterator[Write]:
    """Give what writes one element of a JSON array to the file, each on lines of its own."""
    opening = f"[\n{indent}  "

    def write(value: object) -> None:
        nonlocal opening
        file.write(opening + _pretty(value).replace("\n", f"\n{indent}  "))
        opening = f",\n{indent}  "

    yield write
    file.write(f"\n{indent}]" if opening.startswith(",") else "[]")


def _pretty(value: object) -> str:
    return to_json(value, indent=2).decode()
