"""A catalogue with a scripted model, served over real HTTP, and words to ask it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from agents.chat import ChatAnswer, ChatDelta, ChatModel, ChatRequest, TextScore, Usage
from agents.errors import ContextExceeded, ModelUnavailable, NotFound, StorageError
from agents.schemas import Messages, Persona, SamplingDefaults, Trait
from deployments.service.app import create_app
from deployments.service.catalog import Catalog, ServedModel
from deployments.service.server import open_port

PATIENCE = 20.0

BASE = "local/smollm2-135m"
LIVE = f"{BASE}@jamie-0.2.0"
JAMIE = Persona(
    name="jamie",
    display_name="Jamie",
    description="A dispatcher.",
    agent_type="conversational",
    system_prompt="You are Jamie, who answers the phones.",
    traits=(Trait(name="calm", description="Stays calm."),),
    sampling=SamplingDefaults(temperature=0.3, serving_max_tokens=40),
)


@dataclass
class ScriptedModel:
    """Answers with what it was asked; the last message may order it to wait, to break or to fail."""

    address: str
    context_window: int = 2048
    asked: list[ChatRequest] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def count_tokens(self, messages: Messages) -> int:
        return sum(len(message.content.split()) for message in messages)

    def answer(self, request: ChatRequest) -> ChatAnswer:
        said, seed = request.messages[-1].content, request.sampling.seed
        words = f"Zoë heard “{said}” and drew {seed}.".split(" ")
        kept = words[: request.sampling.max_tokens]
        usage = Usage(prompt_tokens=self.count_tokens(request.messages), completion_tokens=len(kept))
        reason = "stop" if kept == words else "length"
        return ChatAnswer(text=" ".join(kept), finish_reason=reason, usage=usage, seconds=0.0)

    async def obey(self, order: str) -> None:
        if order == "too long":
            raise ContextExceeded(
                "9000 tokens do not fit into a window of 2048.", "Shorten the conversation."
            )
        if order == "crash":
            raise ZeroDivisionError("secret of the house")
        if order == "database":
            raise StorageError("postgres://user:secret@db does not answer.")
        if order in ("wait", "slow"):
            self.started.set()
            try:
                await asyncio.sleep(0.5 if order == "slow" else PATIENCE)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        self.asked.append(request)
        order = request.messages[-1].content
        if order == "one waits, one fails":
            order = "too long" if self.started.is_set() else "wait"
        await self.obey(order)
        return self.answer(request)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        self.asked.append(request)
        order, later, _ = request.messages[-1].content.partition(" later")
        if not later:
            await self.obey(order)
        answer = self.answer(request)
        for index, word in enumerate(answer.text.split(" ")):
            yield ChatDelta(text=(" " if index else "") + word)
            await asyncio.sleep(0)
            if later:
                await self.obey(order)
        if order != "break off":
            yield ChatDelta(text="", answer=answer)

    async def score(self, messages: Messages) -> TextScore:
        raise NotImplementedError


@dataclass
class Listed:
    """A catalogue in a list, which the tests may change between requests."""

    served: list[ServedModel]
    opened: dict[str, ScriptedModel] = field(default_factory=dict)

    def models(self) -> list[ServedModel]:
        return list(self.served)

    def resolve(self, name: str) -> ServedModel:
        found = {served.id: served for served in self.served}
        if name not in found:
            raise NotFound(f"There is no model {name!r}.", f"Known: {', '.join(found)}.")
        return found[name]

    def open(self, served: ServedModel) -> ChatModel:
        if served.address.startswith("nowhere/"):
            raise ModelUnavailable(f"{served.address} cannot be opened.", "Install it.")
        return self.opened.setdefault(served.address, ScriptedModel(served.address))


def listed() -> Listed:
    return Listed(
        [
            ServedModel(id="smollm2-135m", address=BASE, created=1, description="The base model."),
            ServedModel(id="jamie-0.2.0", address=LIVE, created=2, persona=JAMIE),
            ServedModel(id="jamie", address=LIVE, created=2, persona=JAMIE),
            ServedModel(id="gone", address="nowhere/gone", created=3),
        ]
    )


@contextmanager
def served_at(catalog: Catalog, **options: Any) -> Iterator[str]:
    """Serve a catalogue on a free port, in a thread; yield the base URL of the API."""
    app = create_app(catalog, **options)
    with open_port("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "jamie", "messages": [{"role": "user", "content": text}]} | more


def post(api: httpx.Client, text: str = "Hello there", **more: Any) -> httpx.Response:
    return api.post("/chat/completions", json=say(text, **more))


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert set(response.json()) == {"error"}
    return dict(error)


def events_of(response: httpx.Response) -> list[Any]:
    """Return the events of a stream; the end mark is the string [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = response.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [line if line == "[DONE]" else json.loads(line) for line in data]


def only_request(catalog: Listed) -> ChatRequest:
    (request,) = (request for model in catalog.opened.values() for request in model.asked)
    return request
