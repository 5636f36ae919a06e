"""Preference pairs: prompts that the persona has answered, answered again by the untuned student.

Does not know the order of the stages. Prompts are a generation run's documents, or questions written from
the persona's constitution; nothing that is held out becomes a prompt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task

from agents import pairs, responses
from agents.errors import InputError, NotFound
from agents.schemas import Frozen, Messages, Persona, chat, chat_line, with_system
from tasks.card import run_card
from tasks.card_text import card_text
from tasks.cast import find_persona
from tasks.curate import is_held_out
from tasks.generate import Way, write_drafts
from tasks.policies import FallbackChain
from tasks.specs import PairSpec
from tasks.storage.drafts import Pieces, Stage, accepted_texts, claim_run, get_run, missing, runs_of, texts_at
from tasks.storage.leases import leased
from tasks.storage.objects import whole_file, write_text
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Run, now
from tasks.tally import Facts, Tally, pages

OWN: tuple[Stage, ...] = ("question", "chosen", "rejected")
VERSIONS: dict[Stage, str] = {
    "question": pairs.QUESTION,
    "chosen": pairs.CHOSEN,
    "rejected": pairs.REJECTED,
}


class PairReport(Frozen):
    """What a run of pairs came to; `reasons` counts refusals by kind, over all stages."""

    name: str
    persona: str
    student: str
    requested: int
    accepted: int
    dropped: int
    failed: int
    reasons: dict[str, int]
    pairs: Path
    card: Path


def newest_run(store: Store, persona: str) -> str | None:
    """Return the newest generation run for a persona, or None."""
    found = [run for run in runs_of(store, persona, until=now()) if is_generation(run)]
    return max(found, key=lambda run: (run.created_at, run.name)).name if found else None


def is_generation(run: Run) -> bool:
    """Tell a run of ideas, documents and responses from one of conversations or of pairs."""
    return "document_words" in json.loads(run.spec)


def sole_pairer(spec: PairSpec) -> AbstractAsyncContextManager[None]:
    """Wait until no other process writes the run, so that no call is paid for twice."""
    return leased(open_store(), f"pairs {spec.name}")


def start_pairs(spec: PairSpec) -> list[int]:
    """Claim the run's name and return the positions of its prompts.

    Raises Conflict when the name was asked for differently, NotFound or InputError when there are no prompts.
    """
    store = open_store()
    persona = find_persona(store, spec.persona)
    positions = list(_prompts(store, spec, persona))
    if not positions:
        raise InputError(
            f"The run {spec.source!r} has no accepted example that is not held out.",
            f"`understudy generate {persona.name}` writes more.",
        )
    asked = spec.model_dump(mode="json", exclude_none=True)
    asked |= {"persona": persona.name, "design": persona.design, "student": student(spec, persona)}
    claim_run(store, spec.name, persona.name, json.dumps(asked))
    return positions


def stages(spec: PairSpec) -> tuple[Stage, ...]:
    """Return the stages of a run: all of them where it writes its own questions."""
    return OWN if spec.source is None else OWN[-1:]


def stage_chain(spec: PairSpec, stage: Stage) -> FallbackChain:
    """Return the models that answer for a stage."""
    own = FallbackChain.of([student(spec, find_persona(open_store(), spec.persona))])
    return {"question": spec.writers, "chosen": spec.actors}.get(stage, own)


def student(spec: PairSpec, persona: Persona) -> str:
    """Return the address of the untuned model whose answers are rejected."""
    return spec.student or persona.base_model


def unpaired(spec: PairSpec, stage: Stage, positions: Sequence[int]) -> list[int]:
    """Return which of the positions, whose stage before was accepted, still need a draft of this stage."""
    store = open_store()
    todo = missing(store, spec.name, stage, positions)
    if stage != stages(spec)[0]:
        ready = accepted_texts(store, spec.name, OWN[OWN.index(stage) - 1], todo)
        todo = [position for position in todo if position in ready]
    return todo


@task(name="pair-shard", task_run_name="{stage}[{spec.name}]")
async def pair_shard(spec: PairSpec, stage: Stage, positions: list[int]) -> None:
    """Settle the positions of a stage that are not settled yet; raise PartialFailure like `write_shard`."""
    ways = partial(_ways, open_store(), spec, stage)
    await write_drafts(
        spec, stage, positions, chain=stage_chain(spec, stage), version=VERSIONS[stage], ways=ways
    )


@task(name="export-pairs", task_run_name="export-pairs[{spec.name}]")
def export_pairs(spec: PairSpec, requested: int) -> PairReport:
    """Write `X_dpo.jsonl`, a line of prompt, chosen and rejected messages for each pair, and the card."""
    store = open_store()
    persona = find_persona(store, spec.persona)
    folder = store.settings.objects / "runs" / spec.name
    tally = Tally()
    with whole_file(folder / f"{spec.name}_dpo.jsonl") as file:
        for facts, line in read_pairs(store, spec, persona, tally):
            tally.example(facts)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    card = card_text(run_card(spec.name, persona.name, requested, tally))
    return PairReport(
        name=spec.name,
        persona=persona.name,
        student=student(spec, persona),
        requested=requested,
        accepted=tally.accepted,
        dropped=tally.dropped,
        failed=tally.failed,
        reasons=dict(tally.reasons.most_common()),
        pairs=folder / f"{spec.name}_dpo.jsonl",
        card=write_text(folder / f"{spec.name}_card.md", card),
    )


def pair_tally(store: Store, asked: dict[str, Any]) -> tuple[int, Tally]:
    """Return how many prompts a run of pairs had, and what it came to; `asked` is its row's spec."""
    spec = PairSpec.model_validate({name: asked[name] for name in asked if name in PairSpec.model_fields})
    persona, tally = find_persona(store, spec.persona), Tally()
    for facts, _ in read_pairs(store, spec, persona, tally):
        tally.example(facts)
    return sum(1 for _ in _prompts(store, spec, persona)), tally


def read_pairs(
    store: Store, spec: PairSpec, persona: Persona, tally: Tally
) -> Iterator[tuple[Facts, dict[str, Any]]]:
    """Yield the pairs of a run, a page in memory at a time, and count every draft on the way."""
    for page in pages(store, spec.name):
        for pieces in page.values():
            tally.add(pieces)
        kept = [at for at, pieces in page.items() if _is_pair(pieces)]
        answered = _answered(store, spec, kept)
        for position in kept:
            prompt, chosen = answered[position]
            rejected = page[position]["rejected"].text
            yield (
                Facts(
                    origin=f"{spec.name}:{position}",
                    category=_sentence(spec, persona, position),
                    kind="preference pair",
                    words={
                        name: len(text.split())
                        for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
                    },
                    held_out=False,
                    question=prompt,
                    answer=f"chosen: {chosen[:120]} … rejected: {rejected[:120]}",
                ),
                {
                    "prompt": _turns(_asked(spec, persona, prompt)),
                    "chosen": _turns(chat(("assistant", chosen))),
                    "rejected": _turns(chat(("assistant", rejected))),
                },
            )


def _is_pair(pieces: Pieces) -> bool:
    return "rejected" in pieces and pieces["rejected"].status == "accepted"


def _turns(messages: Messages) -> list[dict[str, str]]:
    return chat_line(messages)["messages"]


def _asked(spec: PairSpec, persona: Persona, prompt: str) -> Messages:
    asked = chat(("user", prompt))
    return with_system(persona, asked) if spec.system else asked


def _sentence(spec: PairSpec, persona: Persona, position: int) -> str:
    if spec.source is not None:
        return f"documents of {spec.source}"
    return persona.constitution[position % len(persona.constitution)]


def _prompts(store: Store, spec: PairSpec, persona: Persona) -> Iterator[int]:
    if spec.source is None:
        if not persona.constitution:
            raise InputError(
                f"The persona {persona.name!r} has no constitution to write questions from.",
                "Give `constitution:` a list of sentences that begin with I, or name a run with --run.",
            )
        yield from range(spec.count)
        return
    run = get_run(store, spec.source)
    if run is None or run.persona != persona.name or not is_generation(run):
        raise NotFound(
            f"{spec.source!r} is not a generation run for {persona.name}.",
            f"`understudy generate {persona.name}` makes one and tells its name.",
        )
    for page in pages(store, spec.source):
        for position, pieces in page.items():
            answered = "response" in pieces and pieces["response"].status == "accepted"
            if answered and not is_held_out(f"{spec.source}:{position}"):
                yield position


def _answered(store: Store, spec: PairSpec, positions: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Return prompt and chosen answer by position."""
    if not positions:
        return {}
    run = spec.source or spec.name
    names: tuple[Stage, Stage] = ("question", "chosen") if spec.source is None else ("document", "response")
    prompts, chosen = (texts_at(store, run, stage, positions) for stage in names)
    return {position: (prompts[position], chosen[position]) for position in positions}


async def _ways(store: Store, spec: PairSpec, stage: Stage, positions: Sequence[int]) -> dict[int, Way]:
    """Return for each position how to ask for its draft and what to refuse."""
    persona = find_persona(store, spec.persona)
    if stage == "question":
        return {position: _question_way(persona, position) for position in positions}
    if stage == "chosen":
        asked = await asyncio.to_thread(texts_at, store, spec.name, "question", positions)
        return {position: _chosen_way(spec, persona, text) for position, text in asked.items()}
    found = await asyncio.to_thread(_answered, store, spec, positions)
    return {position: _rejected_way(spec, persona, *found[position]) for position in positions}


def _question_way(persona: Persona, position: int) -> Way:
    sentence = persona.constitution[position % len(persona.constitution)]
    return Way(partial(pairs.question_request, persona, position), partial(pairs.question_problems, sentence))


def _chosen_way(spec: PairSpec, persona: Persona, question: str) -> Way:
    ask = partial(
        pairs.answer_request,
        question,
        system=persona.system_prompt,
        limit=spec.words,
        temperature=persona.sampling.temperature,
    )
    return Way(ask, partial(responses.response_problems, persona, question))


def _rejected_way(spec: PairSpec, persona: Persona, prompt: str, chosen: str) -> Way:
    ask = partial(
        pairs.answer_request,
        prompt,
        system=None,
        limit=spec.words,
        temperature=persona.sampling.temperature,
    )
    return Way(ask, partial(pairs.rejected_problems, chosen))
