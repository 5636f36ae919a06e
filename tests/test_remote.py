"""Models of remote providers through litellm, against a server that speaks their protocols."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openai_server import COST, Remote

from agents.chat import ChatModel, ChatRequest, ModelPlaces, Sampling, Tariff, open_model
from agents.errors import (
    ContextExceeded,
    InputError,
    KeyMissing,
    KeyRefused,
    ModelError,
    ModelTimeout,
    NotFound,
    RateLimited,
    RequestRefused,
)
from agents.schemas import chat
from agents.tariffs import parse_tariffs

pytestmark = pytest.mark.slow
SONNET, ROUTED = "anthropic/claude-sonnet-5-5", "openrouter/anthropic/claude-sonnet-5.5"
GEMINI = "openrouter/google/gemini-3.1-pro-preview"
ASKED = ChatRequest(messages=chat(("system", "Be brief."), ("user", "Hello")), sampling=Sampling(seed=1))


def opened(name: str, server: Remote | None = None, **more: object) -> ChatModel:
    keys = {"ANTHROPIC_API_KEY": "a-key", "OPENROUTER_API_KEY": "o-key", "TOGETHERAI_API_KEY": "t-key"}
    if server:
        keys |= {"ANTHROPIC_API_BASE": server.url, "OPENROUTER_API_BASE": f"{server.url}/api/v1"}
        keys["TOGETHERAI_API_BASE"] = server.base
    options = {"variables": keys, "timeout": 3.0} | more
    return open_model(name, ModelPlaces(cache=Path(), adapter_folder=Path, **options))


async def test_anthropic_is_asked_in_its_own_protocol_at_its_price(server: Remote) -> None:
    answer = await opened(SONNET, server).complete(ASKED)
    seen = server.counts()
    assert seen["headers"]["x-api-key"] == "a-key"
    assert (seen["last"]["model"], seen["last"]["max_tokens"]) == ("claude-sonnet-5-5", 256)
    assert not {"temperature", "seed", "top_p"} & set(seen["last"]), "Claude 5 refuses them"
    usage = answer.usage
    assert answer.cost == pytest.approx((usage.prompt_tokens * 2 + usage.completion_tokens * 10) / 1e6)
    assert answer.finish_reason == "stop"
    assert answer.text.startswith("We looked at")


@pytest.mark.parametrize(("name", "drawn"), [(ROUTED, False), (GEMINI, True)])
async def test_openrouter_says_itself_what_a_call_cost(server: Remote, name: str, *, drawn: bool) -> None:
    answer = await opened(name, server).complete(ASKED)
    assert answer.cost == COST
    seen = server.counts()
    assert seen["headers"]["authorization"] == "Bearer o-key"
    assert ("temperature" in seen["last"]) is drawn


async def test_a_stream_joins_to_the_same_answer(server: Remote) -> None:
    whole = await opened(GEMINI, server).complete(ASKED)
    deltas = [delta async for delta in opened(GEMINI, server).stream(ASKED)]
    assert deltas[-1].answer is not None
    assert deltas[-1].answer.text == whole.text == "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("name", "faults", "error"),
    [
        (SONNET, {"status": 401, "body": '{"type":"error","error":{"message":"bad key"}}'}, KeyRefused),
        (
            SONNET,
            {"status": 400, "body": '{"type":"error","error":{"message":"no prefill"}}'},
            RequestRefused,
        ),
        (
            SONNET,
            {"status": 400, "body": '{"error":{"message":"prompt is too long: 9 > 8"}}'},
            ContextExceeded,
        ),
        (SONNET, {"status": 429, "body": '{"type":"error","error":{"message":"slow down"}}'}, RateLimited),
        (SONNET, {"status": 529, "body": '{"type":"error","error":{"message":"overloaded"}}'}, ModelError),
        (SONNET, {"dead": True}, ModelError),
        (SONNET, {"truncated": 1.0}, ModelError),
        (SONNET, {"latency": 9.0}, ModelTimeout),
        (GEMINI, {"status": 400, "body": '{"error":{"message":"prompt is too long"}}'}, ContextExceeded),
        (GEMINI, {"status": 402, "body": '{"error":{"message":"no credit"}}'}, KeyRefused),
        (GEMINI, {"status": 403, "body": '{"error":{"message":"no"}}'}, KeyRefused),
        (GEMINI, {"status": 500, "body": '{"error":{"message":"down"}}'}, ModelError),
    ],
)
async def test_each_failure_is_an_error_of_ours_after_one_call(
    server: Remote, name: str, faults: dict[str, object], error: type[Exception]
) -> None:
    server.set(**faults)
    with pytest.raises(error) as raised:
        await opened(name, server).complete(ASKED)
    assert type(raised.value) is error
    assert name in str(raised.value)
    once_more = "dead" in faults  # litellm's transport opens a new connection for one that broke off
    assert server.counts()["calls"] == 1 + once_more, "litellm does not retry"


async def test_a_rate_limit_says_when_to_come_back(server: Remote) -> None:
    server.set(limit=1)
    await opened(SONNET, server).complete(ASKED)
    with pytest.raises(RateLimited) as raised:
        await opened(SONNET, server).complete(ASKED)
    assert raised.value.retry_after == 1.0


async def test_a_model_of_ones_own_has_no_price_until_one_is_given(server: Remote) -> None:
    mine = "together_ai/me/jamie"
    assert (await opened(mine, server).complete(ASKED)).cost is None
    answer = await opened(mine, server, tariffs={mine: Tariff(prompt=1, completion=2)}).complete(ASKED)
    usage = answer.usage
    assert answer.cost == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)


@pytest.mark.parametrize(
    ("name", "more", "error", "told"),
    [
        (SONNET, {"variables": {}}, KeyMissing, "Set ANTHROPIC_API_KEY"),
        ("gemini/gemini-3.1-pro-preview", {}, KeyMissing, "Set GEMINI_API_KEY"),
        ("anthropic/claude-sonnet-4-20250514", {}, NotFound, "Close: .*claude-sonnet-4.*UNDERSTUDY_PRICES"),
        ("openrouter/nobody/nothing", {}, NotFound, "openrouter/nobody/nothing"),
        (f"{SONNET}@jamie", {}, InputError, "adapter"),
        ("nobody/model", {}, NotFound, "nobody"),
    ],
)
def test_what_cannot_be_opened_is_refused_before_anything_is_sent(
    name: str, more: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        opened(name, **more)


def test_a_price_makes_an_unknown_model_known() -> None:
    tariffs = parse_tariffs("anthropic/claude-next=3/15, openai/mine=0/0")
    assert opened("anthropic/claude-next", tariffs=tariffs).address == "anthropic/claude-next"
    with pytest.raises(InputError, match="'openai/mine=cheap'"):
        parse_tariffs("openai/mine=cheap")


def test_opening_does_not_import_litellm() -> None:
    code = (
        "import sys; from agents.chat import *; from pathlib import Path\n"
        f"model = open_model({SONNET!r}, ModelPlaces(Path(), Path, {{'ANTHROPIC_API_KEY': 'k'}}))\n"
        "print(model.context_window, sorted({'httpx', 'litellm', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "1000000 []\n", done.stderr
