"""The OpenAI-compatible service, asked by hand: chunks, the error envelope, limits, the specification."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter
from scripted_service import PATIENCE, Listed, error_of, events_of, listed, post, say, served_at

from agents.errors import InputError
from deployments.service.app import create_app

SPEC = Path(__file__).parents[2] / "shared" / "facts" / "specs" / "openai-chat-subset.json"
KEY = "key-for-the-tests"


@pytest.fixture
def catalog() -> Listed:
    return listed()


@pytest.fixture
def url(catalog: Listed) -> Iterator[str]:
    with served_at(catalog) as url:
        yield url


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=PATIENCE) as api:
        yield api


# The wire.


def test_chunks_come_in_order(api: httpx.Client) -> None:
    response = post(api, stream=True, seed=1)
    *chunks, done = events_of(response)
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [set(choice["delta"]) for choice in choices[1:-1]] == [{"content"}] * 7
    assert [choice["finish_reason"] for choice in choices] == [None] * 8 + ["stop"]
    assert choices[-1]["delta"] == {}
    assert all(choice["logprobs"] is None for choice in choices)
    assert not any("usage" in chunk or "system_fingerprint" in chunk for chunk in chunks)


def test_usage_is_null_until_the_last_chunk(api: httpx.Client) -> None:
    *chunks, last, done = events_of(post(api, stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 7)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ("too long later", "context_length_exceeded"),
        ("crash later", "internal_error"),
        ("break off later", "model_error"),
    ],
)
def test_an_error_after_the_first_byte_is_the_last_event(api: httpx.Client, order: str, code: str) -> None:
    response = post(api, order, stream=True)
    events = events_of(response)
    assert response.status_code == 200
    assert "content" in events[1]["choices"][0]["delta"]
    assert set(events[-1]) == {"error"}
    assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
    assert events[-1]["error"]["code"] == code
    assert "secret" not in response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("order", "status", "code", "param"),
    [
        ("too long", 400, "context_length_exceeded", "messages"),
        ("crash", 500, "internal_error", None),
        ("database", 503, "storage_error", None),
    ],
)
def test_an_error_before_the_first_byte_has_its_status(
    api: httpx.Client, stream: bool, order: str, status: int, code: str, param: str | None
) -> None:
    response = api.post(
        "/chat/completions", json=say(order, stream=stream), headers={"x-request-id": "mine-1"}
    )
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine-1"
    assert status < 500 or "mine-1" in error["message"]


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "auto"}, "tool_choice", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"function_call": "auto"}, "function_call", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"audio": {"voice": "x", "format": "mp3"}}, "audio", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 2.5}, "max_tokens", "invalid_type"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"seed": 10**30}, "seed", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": ""}, "stop[0]", "invalid_value"),
        ({"stop": [1]}, "stop[0]", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_parameter"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": None}, "model", "invalid_type"),
    ],
)
def test_what_cannot_be_done_is_refused(
    api: httpx.Client, more: dict[str, Any], param: str, code: str
) -> None:
    response = api.post(
        "/chat/completions",
        content=json.dumps(say("Hello") | more),
        headers={"content-type": "application/json"},
    )
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(param)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_parts_that_are_not_text_are_refused(api: httpx.Client, kind: str) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {}}]
    response = post(api, messages=[{"role": "user", "content": parts}])
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, "messages[0].content")
    assert error["code"] == "unsupported_parameter"
    assert kind in error["message"]


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "application/json", "invalid_json"),
        (b"\xff\xfe", "application/json", "invalid_json"),
        (b"[" * 200_000, "application/json", "invalid_json"),
        (b"[]", "application/json", "invalid_type"),
        (b"", "application/json", "missing_required_parameter"),
        (json.dumps(say("Hello")).encode(), "text/plain", "invalid_type"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(
    api: httpx.Client, body: bytes, kind: str, code: str
) -> None:
    response = api.post("/chat/completions", content=body, headers={"content-type": kind})
    assert (response.status_code, error_of(response)["code"]) == (400, code)


@pytest.mark.parametrize("size", [2**20 + 1, 3 * 2**20, 2**25])
def test_a_body_over_the_limit_is_refused(api: httpx.Client, size: int) -> None:
    response = api.post(
        "/chat/completions", content=b" " * size, headers={"content-type": "application/json"}
    )
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    chunked = api.post("/chat/completions", content=iter([b" " * 2**16] * (size // 2**16 + 1)))
    assert (chunked.status_code, error_of(chunked)["code"]) == (413, "request_too_large")


def test_a_sender_that_does_not_listen_before_its_end_hears_the_refusal(api: httpx.Client) -> None:
    connection = HTTPConnection(api.base_url.host, api.base_url.port, timeout=PATIENCE)
    connection.request("POST", "/v1/chat/completions", body=b" " * 2**23)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_at_the_limit_is_read(api: httpx.Client) -> None:
    body = json.dumps(say("Hello")).encode().ljust(2**20)
    response = api.post("/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/chat/completions", 405),
        ("POST", "/models", 405),
        ("GET", "/nothing", 404),
        ("GET", "/chat/completions/", 404),
        ("GET", "/models/", 404),
    ],
)
def test_routes_that_do_not_exist(api: httpx.Client, method: str, path: str, status: int) -> None:
    response = api.request(method, path)
    error = error_of(response)
    assert (response.status_code, error["type"]) == (status, "invalid_request_error")
    assert status != 405 or response.headers["allow"]


def test_request_ids_are_the_clients_or_new(api: httpx.Client) -> None:
    assert api.get("/models", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [api.get("/models", headers={"x-request-id": "a b;c"}).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(request_id.startswith("req_") for request_id in made)


def test_keys_guard_the_api_but_not_its_health(catalog: Listed) -> None:
    with served_at(catalog, keys=["another", KEY]) as url:
        health = url.removesuffix("/v1") + "/health"
        assert httpx.get(f"{health}/live").json() == {"status": "live"}
        assert httpx.get(f"{health}/ready").json() == {"status": "ready", "models": 4}
        for header in ({}, {"authorization": KEY}, {"authorization": "Bearer wr\xf6ng".encode()}):
            response = httpx.get(f"{url}/models", headers=header)
            assert (response.status_code, error_of(response)["code"]) == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
            assert KEY not in response.text
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as wrong,
            pytest.raises(openai.AuthenticationError),
        ):
            wrong.chat.completions.create(**say("Hello"))
        with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as right:
            assert right.chat.completions.create(**say("Hello")).choices


def test_a_blank_key_is_refused(catalog: Listed) -> None:
    with pytest.raises(InputError, match="blank"):
        create_app(catalog, keys=["good", " "])


def test_an_empty_catalogue_is_alive_but_not_ready() -> None:
    with served_at(Listed([])) as url:
        health = url.removesuffix("/v1") + "/health"
        assert httpx.get(f"{health}/live").status_code == 200
        response = httpx.get(f"{health}/ready")
        assert (response.status_code, error_of(response)["code"]) == (503, "model_unavailable")


# The published types and specification.


def test_answers_have_the_types_of_the_official_package(api: httpx.Client) -> None:
    TypeAdapter(ChatCompletion).validate_python(post(api, n=2).json())
    for one in api.get("/models").json()["data"]:
        TypeAdapter(Model).validate_python(one)
    *chunks, _ = events_of(post(api, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        assert TypeAdapter(ChatCompletionChunk).validate_python(chunk).object == "chat.completion.chunk"


@pytest.mark.skipif(not SPEC.exists(), reason="the published specification is not here")
def test_answers_fulfil_the_published_specification(api: httpx.Client) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    components = json.loads(SPEC.read_text())["components"]

    def fulfils(name: str, answer: object) -> bool:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        problems = list(jsonschema.Draft202012Validator(schema).iter_errors(answer))
        assert problems == []
        return True

    assert fulfils("CreateChatCompletionResponse", post(api, n=2).json())
    assert fulfils("ListModelsResponse", api.get("/models").json())
    assert fulfils("Model", api.get("/models/jamie").json())
    assert fulfils("ErrorResponse", post(api, temperature=9).json())
    *chunks, _ = events_of(post(api, stream=True, stream_options={"include_usage": True}))
    assert all(fulfils("CreateChatCompletionStreamResponse", chunk) for chunk in chunks)
