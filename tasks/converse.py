"""Write the conversations of a simulation run, a shard of positions at a time.

Does not know in what order shards are written. What is dropped at a seat is replaced at a later position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect import task
from prefect.runtime import task_run

from agents import turns
from agents.conversations import CountTokens, Spoken, repeats
from agents.errors import AdapterInvalid, ModelUnavailable
from agents.ledger import LedgerModel
from agents.personas import load_persona
from agents.plans import load_plan
from agents.plans.seats import REPLACEMENTS, Seats, lay_out
from agents.schemas import fingerprint
from agents.tariffs import total_cost
from tasks.models import open_counter, open_rung
from tasks.policies import PartialFailure, attempt, settle
from tasks.progress import advance
from tasks.specs import SimulateSpec
from tasks.storage.conversations import STAGE, accepted_texts, statuses
from tasks.storage.drafts import claim_run
from tasks.storage.leases import leased
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Draft

ASKS = 3
CAST = "workplace"  # whom a simulation run belongs to: nobody alone


def seats_of(spec: SimulateSpec) -> Seats:
    """Return the seats of a run; raise NotFound or InputError for a plan that is not there or not sound."""
    plan = load_plan(spec.plan)
    return lay_out(plan, spec.total or plan.total, spec.seed)


def sole_simulator(spec: SimulateSpec) -> AbstractAsyncContextManager[None]:
    """Wait until no other process writes the run, so that no call is paid for twice."""
    return leased(open_store(), f"simulate {spec.name}")


def start_simulation(spec: SimulateSpec) -> Seats:
    """Claim the run's name for this spec, plan and cast, and return its seats.

    Raises Conflict when the name was asked for differently, ModelUnavailable when the base model that
    counts tokens is not there.
    """
    seats, store = seats_of(spec), open_store()
    open_counter(store, spec.base_model)
    cast = sorted({name for cell in seats.plan.cells for name in seats.plan.kind(cell).cast})
    design = fingerprint(
        seats.plan.model_dump_json(), *(load_persona(name).model_dump_json() for name in cast)
    )
    asked = spec.model_dump(mode="json") | {"total": seats.total, "design": design}
    claim_run(store, spec.name, CAST, json.dumps(asked))
    return seats


def unwritten(spec: SimulateSpec, total: int, replaced: int) -> list[int]:
    """Return the positions that need a conversation: the seats, or replacements."""
    seen = statuses(open_store(), spec.name)
    return [
        seat + replaced * total
        for seat in range(total)
        if seat + replaced * total not in seen
        and all(seen.get(seat + earlier * total) == "dropped" for earlier in range(replaced))
    ]


def settled(spec: SimulateSpec, total: int) -> int:
    """Return how many seats have their conversation or have run out of replacements."""
    last = REPLACEMENTS * total
    return sum(
        status == "accepted" or position >= last
        for position, status in statuses(open_store(), spec.name).items()
    )


def _shard_name() -> str:
    asked: dict[str, Any] = task_run.parameters
    positions = asked["positions"]
    return f"converse[{positions[0]}:{positions[-1] + 1}]"


@task(name="converse-shard", task_run_name=_shard_name)
async def converse_shard(spec: SimulateSpec, positions: list[int]) -> None:
    """Settle the positions that are not settled yet, with the model of this attempt.

    Raises PartialFailure when the model did not answer for all of them; what it answered is kept.
    """
    store = open_store()
    run_count, unavailable = attempt()
    rung = spec.writers.rung(run_count, unavailable)
    done = statuses(store, spec.name)
    todo = [position for position in positions if position not in done]
    try:
        model = open_rung(store, spec.writers, rung, stage=turns.VERSION)
    except (ModelUnavailable, AdapterInvalid) as error:
        failed = dict.fromkeys(todo, str(error))
        raise PartialFailure(failed, total=len(positions), model=rung.model, final=True) from error
    seats, count = seats_of(spec), open_counter(store, spec.base_model)
    work = {position: _settle(store, spec, seats, model, count, position) for position in todo}
    await settle(work, total=len(positions), model=rung.model)


def abandon(spec: SimulateSpec, failure: PartialFailure) -> None:
    """Record the positions that no model of the chain answered as failed, with the reason."""
    for position, reason in failure.failed.items():
        _keep(open_store(), spec, position, status="failed", model=failure.model, reasons=[reason])
        advance()


async def _settle(
    store: Store, spec: SimulateSpec, seats: Seats, model: LedgerModel, count: CountTokens, position: int
) -> None:
    """Ask for one conversation, again with the reasons while it is refused, and keep the outcome."""

    scene = seats.scene(position)
    takes: list[turns.Take] = []
    reasons: list[str] = []
    for number in range(ASKS):
        seed = int(fingerprint(str(spec.seed), STAGE, str(position), str(number)), 16)
        told = takes[-1].problems if takes and takes[-1].whole else ()
        take = await turns.write_conversation(scene, model.complete, count, seed=seed, reasons=told)
        take = _unlike_others(take, lambda: _neighbours(store, spec, seats, position))
        takes.append(take)
        reasons += [f"ask {number + 1}: {reason}" for reason in (*take.refused, *_whole_problems(take))]
        if not take.problems:
            break
    accepted = not takes[-1].problems
    _keep(
        store,
        spec,
        position,
        status="accepted" if accepted else "dropped",
        text=takes[-1].spoken.model_dump_json(),
        model=model.address,
        attempts=len(takes),
        reasons=reasons,
        cost=total_cost(take.cost for take in takes),
        **{name: sum(getattr(take, name) for take in takes) for name in SPENT},
    )
    if accepted or position >= REPLACEMENTS * seats.total:
        advance()


SPENT = ("prompt_tokens", "completion_tokens", "seconds")


def _whole_problems(take: turns.Take) -> tuple[str, ...]:
    return take.problems if take.whole else ()


def _unlike_others(take: turns.Take, others: Callable[[], Sequence[Spoken]]) -> turns.Take:
    """Return the take, refused if it is sound but nearly repeats another conversation of its cell."""
    if take.problems or not repeats(take.spoken, others()):
        return take
    return take.model_copy(
        update={"problems": ("it nearly repeats another conversation, so say other things",)}
    )


def _neighbours(store: Store, spec: SimulateSpec, seats: Seats, position: int) -> list[Spoken]:
    texts = accepted_texts(store, spec.name, seats.neighbours(position))
    return [Spoken.model_validate_json(text) for text in texts]


def _keep(store: Store, spec: SimulateSpec, position: int, *, reasons: list[str], **fields: Any) -> None:
    row = {"text": "", "attempts": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "cost": 0.0}
    store.add_new(
        Draft(
            run=spec.name,
            stage=STAGE,
            position=position,
            reasons=json.dumps(reasons, ensure_ascii=False),
            **{**row, **fields},
        )
    )
