"""A server that speaks the protocols of OpenAI, Anthropic and OpenRouter: slow, faulty or strict as asked.

    python tests/plugins/openai_server.py --latency 0.2 --jitter 0.1 --errors 0.1 --limit 40

It prints its port and serves until its standard input ends. POST /faults changes how it behaves, GET /counts
says what it saw. `limit` is how many calls any one second accepts; the rest get 429 with a Retry-After in
whole seconds. It is a process of its own and speaks HTTP/1.1 with asyncio alone: it takes little of the
machine that it measures on.
Every answer was checked with the types of the `openai` package (tests/test_compatible.py).
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

COST = 0.00123  # US dollars, what OpenRouter says that every call cost
WORDS = (
    "budget",
    "client",
    "vendor",
    "deadline",
    "launch",
    "contract",
    "boiler",
    "invoice",
    "harbour",
    "grant",
)
ROUTES = ("POST /v1/chat/completions", "POST /api/v1/chat/completions", "POST /v1/messages")
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Faults:
    """How it behaves: seconds, shares between 0 and 1, calls a second (0: any), words of an answer."""

    latency: float = 0.0
    jitter: float = 0.0
    errors: float = 0.0
    truncated: float = 0.0
    limit: int = 0
    words: int = 160
    key: str = ""
    status: int = 0
    body: str = ""
    dead: bool = False


@dataclass
class Counts:
    """What it saw; `repeated` counts requests whose prompt had been answered before.

    `first_at` and `ended_at` are monotonic seconds of this machine: the first request, the last answer.
    """

    calls: int = 0
    answered: int = 0
    rejected: int = 0
    failed: int = 0
    peak: int = 0
    repeated: int = 0
    first_at: float = 0.0
    ended_at: float = 0.0


@dataclass
class Server:
    faults: Faults = Faults()
    counts: Counts = field(default_factory=Counts)
    running: int = 0
    accepted: deque[float] = field(default_factory=deque)
    prompts: Counter[str] = field(default_factory=Counter)
    last: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode().split("\r\n")
                headers = {
                    k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = request.split()
                if not await self.respond(f"{method} {path}", headers, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def respond(
        self, route: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Write one response; False when the connection is to be closed without one."""
        if route == "GET /counts":
            return await send(writer, 200, asdict(self.counts) | {"last": self.last, "headers": self.headers})
        if route == "POST /faults":
            self.faults, self.counts = replace(Faults(), **json.loads(body)), Counts()
            return await send(writer, 200, {})
        if route not in ROUTES:
            return await send(writer, 404, error(f"no {route} here"))
        self.counts.calls += 1
        self.counts.first_at = self.counts.first_at or time.monotonic()
        self.last = json.loads(body)
        self.headers = {
            name: value for name, value in headers.items() if name in ("authorization", "x-api-key")
        }
        if self.faults.dead:
            return False
        self.running += 1
        self.counts.peak = max(self.counts.peak, self.running)
        try:
            return await self.chat(route, headers, self.last, writer)
        finally:
            self.running -= 1
            self.counts.ended_at = time.monotonic()

    async def chat(
        self, route: str, headers: dict[str, str], asked: dict[str, Any], writer: asyncio.StreamWriter
    ) -> bool:
        faults = self.faults
        if faults.key and headers.get("authorization") != f"Bearer {faults.key}":
            return await send(writer, 401, error("Incorrect API key provided", code="invalid_api_key"))
        if faults.status:
            return await send(writer, faults.status, text=faults.body)
        wait = self.too_soon()
        if wait:
            self.counts.rejected += 1
            return await send(writer, 429, error("Rate limit reached"), retry=wait)
        await asyncio.sleep(max(0.0, faults.latency + random.uniform(-faults.jitter, faults.jitter)))
        if random.random() < faults.errors:
            self.counts.failed += 1
            return await send(writer, 500, error("The server had an error"))
        answer = completion(asked, faults.words)
        if route.startswith("POST /api/"):
            answer["usage"]["cost"] = COST
        if asked.get("stream"):
            return await stream(writer, asked, answer)
        prompt = json.dumps([asked["messages"], asked.get("seed")])
        self.counts.repeated += self.prompts[prompt] > 0
        self.prompts[prompt] += 1
        if random.random() < faults.truncated:
            self.counts.failed += 1
            return await send(writer, 200, text=json.dumps(answer)[:-40])
        self.counts.answered += 1
        return await send(writer, 200, message(answer) if route.endswith("/messages") else answer)

    def too_soon(self) -> int:
        """Return the whole seconds after which there is room for another call; 0 when there is now."""
        now = time.monotonic()
        while self.accepted and self.accepted[0] <= now - 1:
            self.accepted.popleft()
        if self.faults.limit and len(self.accepted) >= self.faults.limit:
            return math.ceil(self.accepted[0] + 1 - now)
        self.accepted.append(now)
        return 0


def error(message: str, *, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


def completion(asked: dict[str, Any], words: int) -> dict[str, Any]:
    """Return a chat completion whose text differs for every prompt and seed, in sentences."""
    pick = random.Random(json.dumps([asked["messages"], asked.get("seed")]))
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or 1000
    some = [f"{pick.choice(WORDS)} {pick.randint(2, 9999)}" for _ in range(min(words, limit) // 2)]
    sentences = [", ".join(some[at : at + 6]) for at in range(0, len(some), 6)]
    text = " ".join(f"We looked at {sentence}." for sentence in sentences)
    text += f" What would you do about the {pick.choice(WORDS)} {pick.randint(2, 9999)}?"
    contents = [message["content"] for message in asked["messages"]]
    read = sum(
        len((content if isinstance(content, str) else content[0]["text"]).split()) for content in contents
    )
    return {
        "id": f"chatcmpl-{pick.getrandbits(32):08x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": len(text.split()),
            "total_tokens": read + len(text.split()),
        },
    }


def message(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the same answer as Anthropic's Messages API gives it."""
    choice, usage = answer["choices"][0], answer["usage"]
    nothing = ("cache_creation", "cache_creation_input_tokens", "cache_read_input_tokens", "inference_geo")
    return {
        "id": answer["id"].replace("chatcmpl-", "msg_"),
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": choice["message"]["content"], "citations": None}],
        "model": answer["model"],
        **dict.fromkeys(("stop_sequence", "stop_details", "container")),
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            **dict.fromkeys((*nothing, "server_tool_use", "service_tier")),
        },
    }


async def stream(writer: asyncio.StreamWriter, asked: dict[str, Any], answer: dict[str, Any]) -> bool:
    words = answer["choices"][0]["message"]["content"].split(" ")
    shared = {key: answer[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": f"{word} "} for word in words[:-1])]
    deltas.append({"content": words[-1]})
    chunks = [
        {**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({**shared, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append({**shared, "choices": [], "usage": answer["usage"]})
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    writer.write(lines.encode())
    await writer.drain()
    return False


async def send(
    writer: asyncio.StreamWriter, status: int, body: Any = None, *, text: str = "", retry: int = 0
) -> bool:
    content = (text or json.dumps(body)).encode()
    more = f"retry-after: {retry}\r\n" if retry else ""
    writer.write(
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\ncontent-type: application/json\r\n{more}"
        f"content-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    await writer.drain()
    return True


@dataclass(frozen=True)
class Remote:
    """A running server, seen from the test."""

    url: str

    def set(self, **faults: Any) -> None:
        """Behave so from now on, and count from nothing."""
        httpx.post(f"{self.url}/faults", json=faults).raise_for_status()

    def counts(self) -> dict[str, Any]:
        """Return what it saw since."""
        return dict(httpx.get(f"{self.url}/counts").json())

    @property
    def base(self) -> str:
        """Return the base URL of the API."""
        return f"{self.url}/v1"


@contextlib.contextmanager
def openai_server() -> Iterator[Remote]:
    """Have a server in a process of its own, on a free port of the loopback."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Remote(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def main(faults: Faults, port: int) -> None:
    server = Server(faults)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port, backlog=512)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a stand-in of an OpenAI-compatible server")
    for name in ("latency", "jitter", "errors", "truncated"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    options = vars(parser.parse_args())
    port = options.pop("port")
    asyncio.run(main(Faults(**options), port))
