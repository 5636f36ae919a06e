"""How often a model is asked: refusals are waited out, passing failures tried again call by call."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from time import monotonic

import pytest
from openai_server import Remote

from agents.chat import ChatAnswer, ChatRequest, ModelPlaces, Sampling, open_model
from agents.errors import KeyRefused, ModelError, RateLimited
from agents.pacing import DOWN, REGAIN, Learned, Pace, PacedModel
from agents.schemas import chat


def paced(server: Remote, pace: Pace, **options) -> PacedModel:
    variables = {"OPENAI_BASE_URL": server.base}
    model = open_model("openai/m", ModelPlaces(Path(), Path, variables=variables))
    return PacedModel(model, lambda: pace, nullcontext, **options)


async def ask(model: PacedModel, count: int) -> list[ChatAnswer | BaseException]:
    requests = [
        ChatRequest(messages=chat(("user", "Hello")), sampling=Sampling(seed=seed)) for seed in range(count)
    ]
    return list(await asyncio.gather(*map(model.complete, requests), return_exceptions=True))


async def test_a_rate_limit_costs_no_try_and_is_kept_to(server: Remote) -> None:
    server.set(limit=20, latency=0.02)
    pace = Pace(most=8)
    answers = await ask(paced(server, pace), 60)
    counts = server.counts()
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert (counts["answered"], counts["repeated"]) == (60, 0)
    assert 1 <= counts["rejected"] <= 30
    assert pace.learned.rate is not None
    assert pace.learned.rate < 25


async def test_a_call_that_fails_in_passing_is_tried_again_by_itself(server: Remote) -> None:
    server.set(errors=0.3)
    answers = await ask(paced(server, Pace(most=8), attempts=30, delays=(0.001,)), 40)
    counts = server.counts()
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert counts["answered"] == 40
    assert counts["calls"] == 40 + counts["failed"] > 40
    assert counts["peak"] <= 8


@pytest.mark.parametrize(
    ("faults", "error", "calls"),
    [
        ({"errors": 1.0}, ModelError, 3),
        ({"truncated": 1.0}, ModelError, 3),
        ({"dead": True}, ModelError, 3),
        ({"status": 401, "body": "{}"}, KeyRefused, 1),
    ],
)
async def test_what_asking_again_does_not_mend_is_asked_once(
    server: Remote, faults: dict[str, object], error: type[Exception], calls: int
) -> None:
    server.set(**faults)
    (answer,) = await ask(paced(server, Pace(most=8), attempts=3, delays=(0.001,)), 1)
    assert type(answer) is error
    assert server.counts()["calls"] == calls


async def test_a_model_that_is_down_gives_way_to_the_next(server: Remote) -> None:
    server.set(dead=True)
    model = paced(server, Pace(most=1), attempts=4, gives_way=True)
    assert all(isinstance(answer, ModelError) for answer in await ask(model, 10))
    assert server.counts()["calls"] <= 10 + DOWN


async def test_who_wants_no_call_for_hours_is_not_waited_for() -> None:
    class Closed:
        async def complete(self, _request: ChatRequest) -> ChatAnswer:
            raise RateLimited("closed", retry_after=7200.0)

    model = PacedModel(Closed(), lambda: Pace(most=1), nullcontext)  # type: ignore[arg-type]
    (answer,) = await ask(model, 1)
    assert isinstance(answer, RateLimited)


async def test_what_was_learned_is_near_for_a_while_and_then_forgotten() -> None:
    learned = Learned(rate=10.0, at=0.0)
    rates = [learned.now(seconds) or 0.0 for seconds in (0.0, REGAIN / 4, REGAIN, 3 * REGAIN)]
    assert rates == sorted(rates)
    assert rates[1] < 10.2
    assert rates[2:] == [20.0, 280.0]


async def test_refusals_of_one_burst_are_one_piece_of_news() -> None:
    pace = Pace(most=16)
    starts = [await pace.enter() for _ in range(10)]
    for began in starts[:3]:
        pace.refused(began, 0.0)
    assert pace.allowed == 11
    pace.refused(monotonic(), 0.0)
    assert pace.allowed == 7
    for _ in range(200):
        pace.accepted()
    assert pace.allowed == 16
