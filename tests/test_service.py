"""The OpenAI-compatible service, asked by the official client: answers, what models get, ends."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from scripted_service import (
    BASE,
    JAMIE,
    LIVE,
    PATIENCE,
    Listed,
    ScriptedModel,
    error_of,
    listed,
    only_request,
    post,
    say,
    served_at,
)

from agents.chat import ChatModel, ModelPlaces, open_model
from agents.errors import InputError
from agents.schemas import SamplingDefaults
from deployments.service.app import Limits, create_app
from deployments.service.catalog import ServedModel
from deployments.service.server import open_port, serve


@pytest.fixture
def catalog() -> Listed:
    return listed()


@pytest.fixture
def url(catalog: Listed) -> Iterator[str]:
    with served_at(catalog) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=PATIENCE) as api:
        yield api


# The official client.


def test_client_gets_whole_answer_with_usage(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(**say("Hello there", seed=3))
    (choice,) = completion.choices
    assert choice.message.content == "Zoë heard “Hello there” and drew 3."
    assert (choice.message.role, choice.finish_reason, completion.model) == ("assistant", "stop", "jamie")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (9, 7)
    assert completion.usage.total_tokens == 16
    assert completion.id.startswith("chatcmpl-")
    assert completion._request_id


def test_client_gets_the_same_text_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**say("Hello there", seed=3))
    chunks = list(client.chat.completions.create(**say("Hello there", seed=3), stream=True))
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks) == 7 + 2


def test_client_gets_usage_at_the_end_of_a_stream(client: openai.OpenAI) -> None:
    asked = say("Hello there", stream=True, stream_options={"include_usage": True})
    chunks = list(client.chat.completions.create(**asked))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_async_client_streams_several_choices(url: str) -> None:
    async def collect() -> dict[int, str]:
        texts: dict[int, str] = {}
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            async for chunk in await client.chat.completions.create(**say("Hi", n=3, seed=5), stream=True):
                (choice,) = chunk.choices
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
        return texts

    assert asyncio.run(collect()) == {i: f"Zoë heard “Hi” and drew {5 + i}." for i in range(3)}


def test_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**say("Hello") | {"model": "nobody"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert "jamie-0.2.0" in missing.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**say("Hello", temperature=3.5))
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_value")
    assert "3.5" in bad.value.message
    with pytest.raises(openai.InternalServerError) as gone:
        client.chat.completions.create(**say("Hello") | {"model": "gone"})
    assert (gone.value.status_code, gone.value.code) == (503, "model_unavailable")


def test_client_hears_of_a_failure_inside_a_stream(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="do not fit") as broken:
        list(client.chat.completions.create(**say("too long later"), stream=True))
    assert broken.value.code == "context_length_exceeded"


def test_client_lists_and_retrieves_models(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["smollm2-135m", "jamie-0.2.0", "jamie", "gone"]
    assert {model.owned_by for model in models} == {"understudy"}
    assert client.models.retrieve("jamie-0.2.0") == models[1]
    for name in ("nobody", "no/body", "nobody-\N{SNOWMAN}"):
        with pytest.raises(openai.NotFoundError) as missing:
            client.models.retrieve(name)
        assert missing.value.code == "model_not_found"


# What the model is asked.


def test_persona_speaks_first_and_its_sampling_holds(catalog: Listed, api: httpx.Client) -> None:
    assert post(api).status_code == 200
    request = only_request(catalog)
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[0].content == JAMIE.system_prompt
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.3, 40)
    assert request.sampling.seed is None


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_takes_the_personas_place(catalog: Listed, api: httpx.Client, role: str) -> None:
    messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert post(api, messages=messages).status_code == 200
    asked = [(message.role, message.content) for message in only_request(catalog).messages]
    assert asked == [("system", "Be brief."), ("user", "Hello")]


def test_the_base_model_speaks_without_a_persona(catalog: Listed, api: httpx.Client) -> None:
    assert post(api, model="smollm2-135m").status_code == 200
    request = only_request(catalog)
    assert [message.role for message in request.messages] == ["user"]
    assert request.sampling.max_tokens == SamplingDefaults().serving_max_tokens


def test_parameters_reach_the_model(catalog: Listed, api: httpx.Client) -> None:
    asked = {
        "temperature": 0,
        "top_p": 0.9,
        "max_tokens": 5,
        "max_completion_tokens": 4,
        "frequency_penalty": -1,
        "presence_penalty": 0.5,
        "stop": "END",
        "seed": 11,
    }
    assert post(api, **asked).json()["choices"][0]["finish_reason"] == "length"
    sampling = only_request(catalog).sampling
    assert sampling.model_dump() == {
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 4,
        "frequency_penalty": -1.0,
        "presence_penalty": 0.5,
        "stop": ("END",),
        "seed": 11,
    }


def test_choices_differ_by_seed_and_share_the_prompt(catalog: Listed, api: httpx.Client) -> None:
    body = post(api, n=3, seed=2**63 - 2).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    seeds = [request.sampling.seed for request in catalog.opened[LIVE].asked]
    assert sorted(seeds) == [0, 2**63 - 2, 2**63 - 1]
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}


def test_nothing_asked_for_is_accepted(api: httpx.Client) -> None:
    nothing = dict.fromkeys(("temperature", "top_p", "n", "stop", "seed", "max_tokens", "tools", "logprobs"))
    known = {"tools": [], "tool_choice": "none", "modalities": ["text"], "response_format": {"type": "text"}}
    unknown = {"user": "u1", "call": {"id": 1}, "metadata": {"a": "b"}, "store": True, "made_up": [1]}
    for more in (
        nothing,
        known,
        unknown,
        {"stop": []},
        {"top_p": 0},
        {"logprobs": False},
        {"logit_bias": {}},
    ):
        assert post(api, **more).status_code == 200


def test_text_parts_are_joined(catalog: Listed, api: httpx.Client) -> None:
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert post(api, messages=[{"role": "user", "content": parts}]).status_code == 200
    assert only_request(catalog).messages[-1].content == "One.\nTwo."


def test_a_promotion_takes_effect_at_the_next_request(catalog: Listed, api: httpx.Client) -> None:
    post(api)
    promoted = catalog.resolve("jamie").model_copy(update={"address": "local/smollm2-135m@jamie-0.3.0"})
    catalog.served[2] = promoted
    post(api)
    assert list(catalog.opened) == [LIVE, "local/smollm2-135m@jamie-0.3.0"]


# Time and ends.


@pytest.mark.parametrize(("order", "stream"), [("wait", False), ("wait", True), ("wait later", True)])
def test_a_client_that_goes_away_cancels_its_answer(
    catalog: Listed, url: str, order: str, stream: bool
) -> None:
    model = catalog.opened[LIVE] = ScriptedModel("scripted")
    body = json.dumps(say(order, stream=stream, n=2)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        assert model.started.wait(PATIENCE)
        assert not model.cancelled.is_set()
    assert model.cancelled.wait(PATIENCE / 2)


def test_a_choice_that_fails_cancels_the_others(catalog: Listed, client: openai.OpenAI) -> None:
    model = catalog.opened[LIVE] = ScriptedModel("scripted")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**say("one waits, one fails", n=2))
    assert model.cancelled.is_set()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_refused(catalog: Listed, stream: bool) -> None:
    with served_at(catalog, limits=Limits(answer_seconds=0.2)) as url:
        response = httpx.post(f"{url}/chat/completions", json=say("wait", stream=stream), timeout=PATIENCE)
    assert (response.status_code, error_of(response)["code"]) == (504, "model_timeout")
    assert catalog.opened[LIVE].cancelled.is_set()


def test_a_taken_port_is_named() -> None:
    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} on 127.0.0.1 is taken"):
            serve(create_app(listed()), port=port)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70_000), ("no-such-host.invalid", 0), ("192.0.2.1", 0)]
)
def test_an_address_that_cannot_be_had_is_named(host: str, port: int) -> None:
    with pytest.raises(InputError, match=str(port) if port else host):
        open_port(host, port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_after_its_last_answer(number: signal.Signals) -> None:
    catalog = listed()
    model = catalog.opened[LIVE] = ScriptedModel("scripted")
    with open_port("127.0.0.1", 0) as free:
        port = free.getsockname()[1]

    def ask() -> httpx.Response:
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(transport=transport, timeout=PATIENCE) as client:
            return client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=say("slow"))

    def stop_when_started() -> None:
        model.started.wait(PATIENCE)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with ThreadPoolExecutor() as pool:
        asked, _ = pool.submit(ask), pool.submit(stop_when_started)
        serve(create_app(catalog), port=port)
        assert asked.result(PATIENCE).status_code == 200
    assert signal.getsignal(number) is before


# The embedded model.


@dataclass
class Embedded:
    """A catalogue with nothing but the embedded model, opened once."""

    model: ChatModel

    def models(self) -> list[ServedModel]:
        return [ServedModel(id="smollm2-135m", address=BASE, created=0)]

    def resolve(self, name: str) -> ServedModel:
        return self.models()[0]

    def open(self, served: ServedModel) -> ChatModel:
        return self.model


@pytest.mark.model
def test_the_embedded_model_answers_eight_clients_at_once(model_cache: Path, tmp_path: Path) -> None:
    places = ModelPlaces(cache=model_cache, adapter_folder=lambda name: tmp_path / name)
    catalog = Embedded(open_model(BASE, places))
    questions = [f"Name {count} things that are blue." for count in range(2, 10)]
    options = {"api_key": "none", "timeout": 300, "max_retries": 0}
    with served_at(catalog) as url, openai.OpenAI(base_url=url, **options) as client:

        def ask(question: str) -> str:
            asked = say(question, model="smollm2-135m", temperature=0, max_tokens=12)
            return client.chat.completions.create(**asked).choices[0].message.content

        asked = say(questions[0], model="smollm2-135m", temperature=0, max_tokens=12, stream=True)
        streamed = "".join(
            chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked)
        )
        assert streamed
        assert streamed == ask(questions[0])
        with ThreadPoolExecutor(len(questions)) as pool:
            answers = list(pool.map(ask, questions))
    assert len(answers) == len(questions)
    assert all(answers)
