"""The ledger: a finished call is never made again, and a row is written before the answer is used."""

import asyncio

import pytest

from agents.chat import ChatRequest, ModelPlaces, Sampling, open_model
from agents.ledger import Call, LedgerModel, call_key
from agents.schemas import chat
from tasks.storage.calls import DatabaseLedger, call_totals, responses
from tasks.storage.store import Store

REQUEST = ChatRequest(messages=chat(("user", "Hello")), sampling=Sampling(seed=1, max_tokens=40))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    log = tmp_path / "calls"
    log.touch()
    monkeypatch.setenv("SCRIPTED_CALLS", str(log))
    return lambda: len(log.read_text().splitlines())


def recorded(store: Store, **options) -> LedgerModel:
    places = ModelPlaces(cache=store.settings.cache, adapter_folder=lambda name: store.settings.home / name)
    model = open_model("scripted/write", places)
    return LedgerModel(model=model, ledger=DatabaseLedger(store), stage="test/1", **options)


async def test_a_repeated_call_costs_nothing_and_gives_the_same_answer(store, calls) -> None:
    first = await recorded(store).complete(REQUEST)
    again = recorded(store)
    assert await again.complete(REQUEST) == first
    assert (calls(), again.count.made, again.count.replayed) == (1, 0, 1)
    assert call_totals(store).calls == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(seed=2, max_tokens=40)},
        {"sampling": Sampling(seed=1, max_tokens=41)},
        {"messages": chat(("user", "Hello!"))},
    ],
)
async def test_another_prompt_sampling_or_sample_is_another_call(store, calls, change) -> None:
    await recorded(store).complete(REQUEST)
    await recorded(store).complete(REQUEST.model_copy(update=change))
    assert calls() == 2


async def test_another_version_of_the_stage_asks_again(store, calls) -> None:
    await recorded(store).complete(REQUEST)
    model = recorded(store)
    model.stage = "test/2"
    await model.complete(REQUEST)
    assert calls() == 2


async def test_live_chat_is_recorded_and_never_replayed(store, calls) -> None:
    for _ in range(2):
        await recorded(store, replay=False).complete(REQUEST)
    assert calls() == 2
    assert call_totals(store).calls == 2


async def test_a_stream_is_recorded_before_its_last_piece_is_passed_on(store, calls) -> None:
    async for delta in recorded(store, replay=False).stream(REQUEST):
        assert call_totals(store).calls == (0 if delta.answer is None else 1)
    assert calls() == 1


async def test_scores_are_replayed_too(store) -> None:
    model = recorded(store)
    messages = chat(("user", "Hi"), ("assistant", "Good morning to you"))
    assert await model.score(messages) == await model.score(messages)
    assert (model.count.made, model.count.replayed) == (1, 1)


def test_the_key_is_stable_across_processes_and_releases() -> None:
    assert call_key("answer", "idea/1", "local/m", '{"a":1}') == "e5a6e9558caef780"


async def test_recording_a_call_twice_keeps_the_first(store) -> None:
    ledger = DatabaseLedger(store)
    call = Call(
        key="k", kind="answer", stage="s", model="m", request="{}", response="first",
        usage={"prompt_tokens": 1, "completion_tokens": 2}, seconds=0.1,
    )  # fmt: skip
    await ledger.record(call)
    await ledger.record(call.model_copy(update={"response": "second"}))
    assert await ledger.find("k") == "first"
    assert await ledger.find("other") is None


async def test_of_many_calls_at_once_each_is_in_the_ledger_before_its_answer_is_used(store, calls) -> None:
    model = recorded(store)

    async def ask(seed: int) -> None:
        request = REQUEST.model_copy(update={"sampling": Sampling(seed=seed, max_tokens=40)})
        answer = await model.complete(request)
        key = call_key("answer", "test/1", model.address, request.model_dump_json())
        assert responses(store, [key]) == [answer.model_dump_json()]

    await asyncio.gather(*(ask(seed) for seed in range(60)))
    assert calls() == call_totals(store).calls == 60


async def test_calls_wait_for_a_slot_and_replays_need_none(store, calls) -> None:
    slots, asked = asyncio.Semaphore(1), asyncio.Event()

    def slot() -> asyncio.Semaphore:
        asked.set()
        return slots

    first = await recorded(store, slot=slot).complete(REQUEST)
    await slots.acquire()
    asked.clear()
    assert await recorded(store, slot=slot).complete(REQUEST) == first
    assert not asked.is_set()
    other = REQUEST.model_copy(update={"sampling": Sampling(seed=9, max_tokens=40)})
    waiting = asyncio.create_task(recorded(store, slot=slot).complete(other))
    await asked.wait()
    assert calls() == 1
    slots.release()
    await waiting
    assert calls() == 2


async def test_a_call_whose_price_nobody_knows_is_not_taken_for_free(store) -> None:
    ledger, usage = DatabaseLedger(store), {"prompt_tokens": 1, "completion_tokens": 2}
    for key, cost in (("a", 0.5), ("b", None)):
        call = {
            "kind": "answer",
            "stage": "s",
            "model": "m",
            "request": "{}",
            "response": "{}",
            "seconds": 0.1,
        }
        await ledger.record(Call(key=key, usage=usage, cost=cost, **call))
    assert (call_totals(store).cost, call_totals(store).unpriced) == (0.5, 1)
