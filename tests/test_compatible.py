"""Models behind the OpenAI protocol, against a server of its own process: answers, streams, every error."""

import os
import subprocess
import sys
from copy import copy
from pathlib import Path

import httpx
import pytest
from openai.types import chat as types
from openai_server import Remote

from agents.chat import ChatAnswer, ChatModel, ChatRequest, ModelPlaces, Sampling, open_model
from agents.errors import (
    ContextExceeded,
    InputError,
    KeyMissing,
    KeyRefused,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    RequestRefused,
)
from agents.refusals import refusal
from agents.schemas import chat

ASKED = ChatRequest(messages=chat(("system", "Be brief."), ("user", "Hello")), sampling=Sampling(seed=1))


def opened(server: Remote, name: str = "openai/teacher", **variables: str) -> ChatModel:
    variables = {"OPENAI_BASE_URL": server.base} | variables
    return open_model(name, ModelPlaces(cache=Path(), adapter_folder=Path, variables=variables, timeout=2.0))


async def test_an_answer_says_why_it_ended_and_what_it_took(server: Remote) -> None:
    answer = await opened(server).complete(ASKED)
    assert (answer.finish_reason, answer.cost, answer.usage.prompt_tokens) == ("stop", 0.0, 3)
    assert answer.usage.completion_tokens == len(answer.text.split())
    asked = server.counts()["last"]
    assert asked == {
        "model": "teacher", "messages": [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"}], "max_tokens": 256, "temperature": 0.7, "seed": 1,
    }  # fmt: skip


async def test_a_stream_joins_to_the_same_answer(server: Remote) -> None:
    whole = await opened(server).complete(ASKED)
    deltas = [delta async for delta in opened(server).stream(ASKED)]
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.answer is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    assert isinstance(deltas[-1].answer, ChatAnswer)
    assert deltas[-1].answer.usage == whole.usage


def test_the_server_keeps_to_the_protocol(server: Remote) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    url = f"{server.base}/chat/completions"
    types.ChatCompletion.model_validate(httpx.post(url, json=body).json(), strict=True)
    streamed = httpx.post(url, json=body | {"stream": True, "stream_options": {"include_usage": True}}).text
    lines = [line.removeprefix("data: ") for line in streamed.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    for line in lines:
        types.ChatCompletionChunk.model_validate_json(line, strict=True)


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"key": "right"}, KeyRefused),
        ({"status": 402, "body": "{}"}, KeyRefused),
        ({"status": 403, "body": "{}"}, KeyRefused),
        ({"status": 404, "body": '{"error": {"message": "no such model"}}'}, ModelUnavailable),
        ({"status": 400, "body": '{"error": {"message": "temperature is not supported"}}'}, RequestRefused),
        ({"status": 400, "body": '{"error": {"code": "context_length_exceeded"}}'}, ContextExceeded),
        ({"status": 422, "body": '{"error": "prompt is too long: 9 > 8"}'}, ContextExceeded),
        ({"status": 429, "body": '{"error": {"code": "insufficient_quota"}}'}, KeyRefused),
        ({"status": 429, "body": "{}"}, RateLimited),
        ({"status": 500, "body": "<html>"}, ModelError),
        ({"status": 529, "body": ""}, ModelError),
        ({"status": 504, "body": ""}, ModelTimeout),
        ({"status": 200, "body": "{}"}, ModelError),
        ({"status": 200, "body": '{"choices": []}'}, ModelError),
        ({"truncated": 1.0}, ModelError),
        ({"dead": True}, ModelError),
        ({"latency": 9.0}, ModelTimeout),
    ],
)
async def test_each_failure_is_an_error_of_its_own(
    server: Remote, faults: dict[str, object], error: type[Exception]
) -> None:
    server.set(**faults)
    with pytest.raises(error) as raised:
        await opened(server, OPENAI_API_KEY="wrong").complete(ASKED)
    assert type(raised.value) is error
    assert "openai/teacher" in str(raised.value)
    assert "wrong" not in str(raised.value)
    assert server.counts()["calls"] == 1, "nothing is retried down here"


async def test_a_stream_fails_like_a_call(server: Remote) -> None:
    server.set(limit=1)
    await opened(server).complete(ASKED)
    with pytest.raises(RateLimited) as raised:
        _ = [delta async for delta in opened(server).stream(ASKED)]
    assert raised.value.retry_after == 1.0


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9/v1.*OPENAI_BASE_URL"):
        await opened(Remote("http://127.0.0.1:9")).complete(ASKED)


async def test_a_given_text_cannot_be_scored_and_tokens_are_estimated(server: Remote) -> None:
    model = opened(server)
    with pytest.raises(RequestRefused, match="score"):
        await model.score(ASKED.messages)
    assert model.count_tokens(chat(("user", "x" * 40))) == 14
    assert server.counts()["calls"] == 0


@pytest.mark.parametrize(
    ("name", "variables", "error", "told"),
    [
        ("openai/gpt", {"OPENAI_BASE_URL": "https://models.example/v1"}, KeyMissing, "Set OPENAI_API_KEY"),
        ("openai/gpt", {"OPENAI_BASE_URL": "models"}, InputError, "OPENAI_BASE_URL='models'"),
        ("openai/gpt@jamie", {}, InputError, "openai/gpt@jamie"),
    ],
)
def test_what_cannot_be_opened_is_refused_before_anything_is_sent(
    server: Remote, name: str, variables: dict[str, str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        opened(server, name, **variables)


def test_without_a_key_the_default_address_is_refused() -> None:
    with pytest.raises(KeyMissing, match="OPENAI_API_KEY"):
        open_model("openai/gpt", ModelPlaces(cache=Path(), adapter_folder=Path))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_a_rate_limit_carries_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    error = refusal("openai/m", 429, "{}", headers)
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds
    again = copy(error)
    assert (again.retry_after, str(again)) == (seconds, str(error))


def test_neither_opening_nor_importing_loads_a_client() -> None:
    code = (
        "import sys; from agents.chat import *; from pathlib import Path\n"
        "open_model('openai/m', ModelPlaces(Path(), Path, {'OPENAI_BASE_URL': 'http://localhost:1/v1'}))\n"
        "print(sorted({'httpx', 'litellm', 'openai', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout == "[]\n", done.stderr
