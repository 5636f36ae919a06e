"""Make a dataset of a persona's examples: split, deduplicated, free of leaks, kept under its hash.

Does not know who trains on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from prefect import task

from agents.errors import DatasetInvalid
from agents.quality import near_duplicate
from agents.schemas import chat_line, fingerprint, with_system
from tasks.cast import find_persona
from tasks.evaluation.prompts import HeldOut
from tasks.storage.examples import examples, load_messages
from tasks.storage.objects import write_lines
from tasks.storage.store import open_store
from tasks.storage.tables import Dataset, Example

HELD_OUT_SHARE = 0.25
LEAK_SIMILARITY = 0.8


@task(name="snapshot-dataset", task_run_name="snapshot[{persona_name}]")
def snapshot_dataset(persona_name: str, up_to_round: int) -> str:
    """Freeze the examples of a persona's rounds up to one and return the dataset's id.

    The same examples give the same one, however many have arrived since.

    The split is by the hash of the conversation, so that one that was held out is never trained on later.
    Raises DatasetInvalid when either side of the split is empty.
    """
    store = open_store()
    persona = find_persona(store, persona_name)
    rows = list(examples(store, persona.name, up_to_round=up_to_round))
    held_out = [row for row in rows if is_held_out(row.origin)]
    learned = [row for row in rows if not is_held_out(row.origin)]
    train, duplicates = _distinct(learned)
    train, leaks = _without_leaks(train, held_out)
    if not train or not held_out:
        raise DatasetInvalid(
            f"{persona.name} has {len(train)} examples to learn from and {len(held_out)} held out.",
            f"Both must be there: `understudy generate {persona.name}` writes more, "
            "or name a conversations file in the persona.",
        )
    counts = {"train": len(train), "held_out": len(held_out), "duplicates": duplicates, "leaks": leaks}
    train_lines = [
        json.dumps(
            {"category": row.category, **chat_line(with_system(persona, load_messages(row.messages)))},
            ensure_ascii=False,
        )
        for row in train
    ]
    held_lines = [
        HeldOut(
            origin=row.origin,
            category=row.category,
            messages=with_system(persona, load_messages(row.messages)),
        ).model_dump_json()
        for row in held_out
    ]
    dataset_id = fingerprint(*train_lines, "held out", *held_lines)
    folder = store.settings.objects / "datasets" / dataset_id
    dataset = Dataset(
        id=dataset_id,
        persona=persona.name,
        design=persona.design,
        cast=persona.model_dump_json(),
        train_file=store.object_name(write_lines(folder / "train.jsonl", train_lines)),
        held_out_file=store.object_name(write_lines(folder / "held_out.jsonl", held_lines)),
        counts=json.dumps(counts),
    )
    store.add_new(dataset)
    return dataset_id


def is_held_out(origin: str) -> bool:
    """Tell on which side of the split a conversation falls, for good."""
    return int(fingerprint("split", origin), 16) % 1000 < HELD_OUT_SHARE * 1000


def _distinct(rows: Sequence[Example]) -> tuple[list[Example], int]:
    kept = {row.messages: row for row in rows}
    return list(kept.values()), len(rows) - len(kept)


def _without_leaks(train: Sequence[Example], held_out: Sequence[Example]) -> tuple[list[Example], int]:
    asked = [_questions(row) for row in held_out]
    kept = [row for row in train if near_duplicate(_questions(row), asked, threshold=LEAK_SIMILARITY) is None]
    return kept, len(train) - len(kept)


def _questions(row: Example) -> str:
    return "\n".join(m.content for m in load_messages(row.messages) if m.role == "user")
