"""Fallback chains as data, and how Prefect is told whether another attempt helps."""

import asyncio
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from agents.errors import InputError, ModelTimeout, ModelUnavailable
from tasks.policies import FallbackChain, PartialFailure, Rung, call_slot, can_retry, shards

CHAIN = FallbackChain(
    rungs=(
        Rung(model="a", attempts=3, delays=(1.0, 2.0)),
        Rung(model="b", attempts=2, delays=(5.0,)),
        Rung(model="c", attempts=1),
    )
)


def test_a_chain_expands_to_attempts_that_switch_models_at_once() -> None:
    options = CHAIN.options()
    assert (options["retries"], options["retry_delay_seconds"]) == (2, 0)


def test_the_rung_follows_from_the_run_count() -> None:
    assert tuple(CHAIN.rung(count) for count in range(1, 4)) == CHAIN.rungs


def test_an_unavailable_model_is_left_out_and_none_left_is_an_error() -> None:
    assert CHAIN.rung(1, {"a": "gone"}).model == "b"
    with pytest.raises(ModelUnavailable, match=r"a, b, c.*gone"):
        CHAIN.rung(1, dict.fromkeys("abc", "gone"))


def test_a_chain_of_one_model_is_no_retry_of_the_shard() -> None:
    assert FallbackChain(rungs=(Rung(model="a", attempts=3),)).options()["retries"] == 0


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ModelTimeout("late"), True),
        (ModelUnavailable("gone"), False),
        (PartialFailure({1: "x"}, total=2, model="a", final=True), True),
        (InputError("no"), False),
        (ValueError("bug"), False),
    ],
)
def test_models_are_asked_again_and_our_own_mistakes_are_not(error: Exception, *, helps: bool) -> None:
    run = TaskRun(id=uuid4(), task_key="t", dynamic_key="0")
    assert can_retry(None, run, Failed(data=error)) is helps


@given(st.lists(st.integers(), max_size=120), st.integers(min_value=1, max_value=40))
def test_shards_hold_every_item_once_in_order(items: list[int], size: int) -> None:
    parts = [list(part) for part in shards(items, size)]
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize(("given", "most"), [(None, 32), ("7", 7)])
async def test_calls_are_bounded(monkeypatch: pytest.MonkeyPatch, given: str | None, most: int) -> None:
    if given:
        monkeypatch.setenv("UNDERSTUDY_CONCURRENT_CALLS", given)
    running = peak = 0

    async def call() -> None:
        nonlocal running, peak
        async with call_slot():
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.001)
            running -= 1

    await asyncio.gather(*(call() for _ in range(100)))
    assert peak == most
