"""Data cards: what is in a run or a dataset, where it came from, and what it is not.

Does not know how a card is shown. Computed from the rows and files as they are, one pass, so that a card
cannot say what the data does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agents.errors import DatasetInvalid, NotFound
from agents.scenarios import load_scenarios
from tasks.card_text import Card, Sample, card_text
from tasks.converse import seats_of
from tasks.curate import HELD_OUT_SHARE, is_held_out
from tasks.generate import STAGES
from tasks.specs import GenerateSpec, SimulateSpec
from tasks.storage.drafts import Pieces, get_run, runs_of
from tasks.storage.examples import get_dataset
from tasks.storage.objects import write_text
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Dataset, Run
from tasks.tally import Facts, Tally, pages, spread

DUPLICATE = "near duplicate"
EXCERPT = 280  # characters
MANY = 0.1  # of what was asked for


def find_card(store: Store, name: str) -> Card:
    """Return the card of a run by its name or a dataset by its id; raise NotFound when it is neither."""
    run = get_run(store, name)
    if run is not None:
        return _card_of_run(store, run)
    try:
        return dataset_card(store, get_dataset(store, name))
    except NotFound as error:
        raise NotFound(
            f"{name!r} is neither a run nor a dataset.",
            "`understudy generate PERSONA` tells the name of its run, `understudy versions` the datasets.",
        ) from error


def write_dataset_card(dataset_id: str) -> Path:
    """Write a dataset's card beside its files and return its path."""
    store = open_store()
    dataset = get_dataset(store, dataset_id)
    path = store.object_path(dataset.train_file).with_name("card.md")
    return write_text(path, card_text(dataset_card(store, dataset)))


def run_card(name: str, persona: str, requested: int, tally: Tally) -> Card:
    """Return the card of a run that was counted."""
    split = {"train": tally.accepted - tally.held_out, "held out": tally.held_out}
    return _card(
        tally,
        name=name,
        what="run",
        persona=persona,
        requested=requested,
        split=split,
        how_split=f"By the hash of each example's origin about {HELD_OUT_SHARE:.0%} are held out for good, "
        "and never trained on; the exported files hold both.",
    )


def run_facts(run: str, pieces: Pieces, order: Sequence[str]) -> Facts:
    """Return what a card says of an accepted example; `order` holds the categories of the run's rounds."""
    position = pieces["document"].position
    origin = f"{run}:{position}"
    return Facts(
        origin=origin,
        category=order[position % len(order)],
        kind=load_scenarios().document_type(position),
        words={stage: len(pieces[stage].text.split()) for stage in STAGES},
        held_out=is_held_out(origin),
        question=pieces["document"].text,
        answer=pieces["response"].text,
    )


def dataset_card(store: Store, dataset: Dataset) -> Card:
    """Return the card of a dataset: its files, and the runs that its examples may come from."""
    tally = Tally()
    for run in runs_of(store, dataset.persona, until=dataset.created_at):
        if "student" in json.loads(run.spec):
            continue  # preference pairs are no examples
        for page in pages(store, run.name):
            for pieces in page.values():
                tally.add(pieces)
    for held_out, file in ((False, dataset.train_file), (True, dataset.held_out_file)):
        for at, line in enumerate(_lines(store.object_path(file))):
            tally.example(_line_facts(line, f"{file}:{at}", held_out=held_out))
    counts: dict[str, int] = json.loads(dataset.counts)
    return _card(
        tally,
        name=dataset.id,
        what="dataset",
        persona=dataset.persona,
        requested=None,
        split={name.replace("_", " "): count for name, count in counts.items()},
        how_split=f"By the hash of each conversation's origin, about {HELD_OUT_SHARE:.0%} held out for good. "
        "Equal examples are kept once; what nearly repeats a held-out question is left out of training.",
    )


def _card_of_run(store: Store, run: Run) -> Card:
    asked = json.loads(run.spec)
    if "student" in asked:
        return _card_of_pairs(store, run)
    fields = SimulateSpec.model_fields if "plan" in asked else GenerateSpec.model_fields
    asked = {name: value for name, value in asked.items() if name in fields}
    tally = Tally()
    if "plan" in asked:
        requested = seats_of(SimulateSpec.model_validate(asked)).total
        read = _conversation_facts
    else:
        spec = GenerateSpec.model_validate(asked)
        requested = spec.count
        order = [scenario.name for scenario in load_scenarios().order(spec.seed)]

        def read(pieces: Pieces) -> Facts:
            return run_facts(run.name, pieces, order)

    last = "conversation" if "plan" in asked else STAGES[-1]
    for page in pages(store, run.name):
        for pieces in page.values():
            tally.add(pieces)
            if last in pieces and pieces[last].status == "accepted":
                tally.example(read(pieces))
    return run_card(run.name, run.persona, requested, tally)


def _card_of_pairs(store: Store, run: Run) -> Card:
    from tasks.pairs import pair_tally  # pairs have cards too

    requested, tally = pair_tally(store, json.loads(run.spec))
    return run_card(run.name, run.persona, requested, tally)


def _conversation_facts(pieces: Pieces) -> Facts:
    from agents.conversations import Spoken

    spoken = Spoken.model_validate_json(pieces["conversation"].text)
    return Facts(
        origin=spoken.id,
        category=spoken.scene.kind,
        kind=spoken.scene.length,
        words={"conversation": sum(len(turn.text.split()) for turn in spoken.turns)},
        held_out=is_held_out(spoken.id),
        question=spoken.transcript[0],
        answer="\n".join(spoken.transcript[1:]),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    except (OSError, ValueError) as error:
        raise DatasetInvalid(
            f"The file {path} of the dataset cannot be read: {error}.",
            "`understudy finetune PERSONA` writes it again from the same examples.",
        ) from error


def _line_facts(line: Mapping[str, Any], origin: str, *, held_out: bool) -> Facts:
    said = [(turn["role"], turn["content"]) for turn in line["messages"]]
    question = "\n".join(content for role, content in said if role == "user")
    answer = said[-1][1]
    return Facts(
        origin=origin,
        category=line["category"],
        kind="conversation" if len(said) > 3 else "question and answer",
        words={"question": len(question.split()), "answer": len(answer.split())},
        held_out=held_out,
        question=question,
        answer=answer,
    )


def _card(
    tally: Tally,
    *,
    name: str,
    what: Literal["run", "dataset"],
    persona: str,
    requested: int | None,
    split: dict[str, int],
    how_split: str,
) -> Card:
    reasons = dict(tally.reasons.most_common())
    return Card(
        name=name,
        what=what,
        persona=persona,
        requested=requested,
        **{
            field: getattr(tally, field)
            for field in ("accepted", "dropped", "failed", "refused", "shortened")
        },
        duplicates_refused=reasons.get(DUPLICATE, 0),
        reasons=reasons,
        categories=dict(sorted(tally.categories.items())),
        kinds=dict(sorted(tally.kinds.items())),
        words={part: spread(counts) for part, counts in tally.words.items()},
        models=tally.usages(),
        split=split,
        how_split=how_split,
        samples=tuple(
            Sample(
                category=facts.category,
                kind=facts.kind,
                question=_excerpt(facts.question),
                answer=_excerpt(facts.answer),
            )
            for _, facts in tally.samples
        ),
        limits=_limits(tally, requested),
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT].rsplit(' ', 1)[0]} …"


def _limits(tally: Tally, requested: int | None) -> tuple[str, ...]:
    """Return what the data does not promise, the gravest first."""
    found = []
    lost = (requested or tally.accepted) - tally.accepted
    if requested and lost > MANY * requested:
        found.append(
            f"{lost} of {requested} are not there; whatever those situations have in common is missing."
        )
    counts = tally.categories.values()
    if counts and max(counts) > 2 * min(counts):
        found.append(f"Categories are uneven: between {min(counts)} and {max(counts)} examples each.")
    if tally.shortened:
        found.append(f"{tally.shortened} texts reached their token limit: they end where a sentence does.")
    if tally.models:
        found.append(
            "Models wrote this, not people: names, figures and facts in it are invented, and whatever habits "
            f"{', '.join(sorted(tally.models))} have, it has too."
        )
    found.append(
        "The checks count words, and look for refusals, placeholders, repetition, leaked prompts, near "
        "duplicates and the persona's rules. They do not tell whether an answer is right."
    )
    return tuple(found)
