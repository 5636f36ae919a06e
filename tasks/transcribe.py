"""Write a simulation run down: views as examples, and its three files, which are functions of the rows.

Does not know how the conversations came to be. Transcribing twice gives the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prefect import task

from agents.conversations import Spoken
from agents.personas import load_persona
from agents.schemas import chat_line, fingerprint, with_system
from tasks.converse import seats_of
from tasks.rounds import examples_arrived
from tasks.simulation import Kept, SimulateReport, accepted, simulation_metadata, simulation_report
from tasks.specs import SimulateSpec
from tasks.storage.conversations import STAGE
from tasks.storage.drafts import drafts
from tasks.storage.examples import dump_messages
from tasks.storage.objects import write_lines, write_text
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Conversation, Example


@task(name="transcribe-run", task_run_name="transcribe[{spec.name}]")
def transcribe_run(spec: SimulateSpec) -> SimulateReport:
    """Keep the examples and write `X.jsonl` (views), `X_conversations.jsonl` and `X_metadata.json`.

    Raises StorageError, leaving the files as they were, when they cannot be written.
    """
    store, seats = open_store(), seats_of(spec)
    rows = list(drafts(store, spec.name, STAGE).values())
    kept = sorted(accepted(rows), key=lambda one: one.position % seats.total)
    added = Counter(name for one in kept for name in _keep_views(store, one))
    for persona, count in added.items():
        examples_arrived(store, persona, count)
    folder = store.settings.objects / "runs" / spec.name
    report = simulation_report(spec, seats, kept, rows, folder)
    write_lines(report.examples, (json.dumps(line, ensure_ascii=False) for line in _view_lines(kept)))
    write_lines(report.conversations, (json.dumps(line, ensure_ascii=False) for line in _details(kept)))
    metadata = simulation_metadata(spec, seats, report, rows)
    write_text(report.metadata, json.dumps(metadata, ensure_ascii=False, indent=2))
    return report


def _keep_views(store: Store, one: Kept) -> Iterator[str]:
    """Keep each view as a conversation of its persona and as an example; all have the conversation's id.

    Yields the persona of each example that is new.
    """
    for name, messages in one.views:
        persona = load_persona(name).name
        shared: dict[str, Any] = {
            "persona": persona,
            "category": one.spoken.scene.kind,
            "messages": dump_messages(messages),
        }
        store.add_new(Conversation(id=one.spoken.id, source="simulation", **shared))
        example = Example(
            id=_example_id(persona, one.spoken), source="synthetic", origin=one.spoken.id, **shared
        )
        if store.add_new(example):
            yield persona


def _example_id(persona: str, spoken: Spoken) -> str:
    return fingerprint(persona, spoken.id)


def _view_lines(kept: Sequence[Kept]) -> Iterator[dict[str, Any]]:
    for one in kept:
        for name, messages in one.views:
            yield chat_line(with_system(load_persona(name), messages))


def _details(kept: Sequence[Kept]) -> Iterator[dict[str, Any]]:
    """Yield the conversations with all that is known of them; `examples` gives each view's line, from 0."""
    line = 0
    for one in kept:
        spoken, scene = one.spoken, one.spoken.scene
        personas = [load_persona(name).name for name, _ in one.views]
        yield {
            "id": spoken.id,
            **scene.model_dump(mode="json", include={"kind", "length", "topic", "project", "circumstance"}),
            "participants": [{"persona": p.slug, "name": p.name, "role": p.role} for p in scene.participants],
            "turns": [{"speaker": scene.participants[t.speaker].name, "text": t.text} for t in spoken.turns],
            "exchanges": len(spoken.turns),
            "tokens": spoken.tokens,
            "example_tokens": spoken.example_tokens,
            "examples": [
                {"id": _example_id(persona, spoken), "persona": persona, "line": line + at}
                for at, persona in enumerate(personas)
            ],
            "position": one.position,
            "model": one.model,
            "attempts": one.attempts,
            "created_at": one.created_at,
        }
        line += len(personas)
