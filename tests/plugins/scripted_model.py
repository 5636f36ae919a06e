"""A third party's model, as a plugin: it follows a script in its name instead of thinking.

`scripted/write`          writes plausible, distinct text that passes the quality checks
`scripted/slow-SECONDS`   the same, after that long
`scripted/picky`          writes, but refuses whatever is about a bank, a museum, nurses or payroll
`scripted/brief`          says four words at a time
`scripted/flaky-COUNT`    times out on its first COUNT calls in this process, then writes
`scripted/refuse`         answers with a refusal
`scripted/cut`            writes until the token limit cuts it in the middle of its last sentence
`scripted/endless`        never ends a sentence until the token limit cuts it
`scripted/traits`         judges traits: half of the answers are not encouraging, it says
`scripted/mute`           judges nothing
`scripted/missing`        cannot be opened
Every call is appended to the file named by SCRIPTED_CALLS, so that calls survive a kill and can be counted.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agents.chat import ChatAnswer, ChatDelta, ChatRequest, ModelAddress, ModelPlaces, TextScore, Usage
from agents.errors import ModelTimeout, ModelUnavailable
from agents.schemas import Messages, fingerprint

WORDS = (
    *("budget", "client", "vendor", "deadline", "launch", "review", "contract", "staff", "safety"),
    *("training", "report", "supplier", "warehouse", "hospital", "school", "engineer", "nurse"),
    *("manager", "analyst", "audit", "outage", "refund", "policy", "meeting", "proposal", "delay"),
    *("quality", "ticket", "roof", "boiler", "invoice", "grant", "museum", "harbour", "bakery"),
)
_failures: dict[str, int] = {}


class ScriptedModel:
    context_window = 8192

    def __init__(self, address: ModelAddress) -> None:
        self.address = str(address)
        self.script, _, argument = address.name.partition("-")
        self.argument = float(argument or 0)

    def count_tokens(self, messages: Messages) -> int:
        return sum(len(message.content.split()) for message in messages)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        started = time.monotonic()
        key = fingerprint(self.address, request.model_dump_json())
        if self.script == "flaky" and _failures.setdefault(self.address, 0) < self.argument:
            _failures[self.address] += 1
            raise ModelTimeout(f"{self.address} took too long.", "Ask again.")
        await asyncio.sleep(self.argument if self.script == "slow" else 0)
        note_call(key)
        text = self.text(key, request)
        return ChatAnswer(
            text=text,
            finish_reason="length" if self.script in ("cut", "endless") else "stop",
            usage=Usage(
                prompt_tokens=self.count_tokens(request.messages), completion_tokens=len(text.split())
            ),
            seconds=time.monotonic() - started,
        )

    def text(self, key: str, request: ChatRequest) -> str:
        told = request.messages[0].content
        unwanted = any(word in told for word in ("bank", "museum", "nurses", "payroll"))
        if self.script == "refuse" or (self.script == "picky" and unwanted):
            return "I'm sorry, but I can't help with that."
        if self.script == "brief":
            return f"Room {int(key, 16)}, as agreed."
        if self.script == "cut":
            return story(key, request) + " And then we"
        if self.script == "endless":
            return story(key, request).replace(".", ",").replace("?", ",")
        if self.script == "traits":
            names = re.findall(r"^- ([^:]+):", request.messages[-1].content, flags=re.MULTILINE)
            grim = int(key, 16) % 2
            return "\n".join(
                f"{name}: no - it is grim" if grim and name == "Encouraging" else f"{name}: yes - it does"
                for name in names
            )
        if self.script == "mute":
            return "I would rather not say."
        return story(key, request)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        answer = await self.complete(request)
        head, tail = answer.text[: len(answer.text) // 2], answer.text[len(answer.text) // 2 :]
        yield ChatDelta(text=head)
        yield ChatDelta(text=tail, answer=answer)

    async def score(self, messages: Messages) -> TextScore:
        tokens = messages[-1].content.split()
        return TextScore(log_probabilities=tuple(-1.0 for _ in tokens), seconds=0.0)


def note_call(key: str) -> None:
    log = os.environ.get("SCRIPTED_CALLS")
    if log:
        with Path(log).open("a") as file:
            file.write(key + "\n")


def story(key: str, request: ChatRequest) -> str:
    """Return about as many words as there is room for, other words for every key, in sentences."""
    pick = random.Random(key)
    length = min(request.sampling.max_tokens // 2, 160)
    sentences = []
    while sum(len(sentence.split()) for sentence in sentences) < length:
        words = [f"{pick.choice(WORDS)} {pick.randint(2, 9999)}" for _ in range(6)]
        sentences.append("We looked at " + ", ".join(words) + ".")
    return " ".join(sentences) + f" What would you do about the {pick.choice(WORDS)} {pick.randint(2, 9999)}?"


def open_scripted(address: ModelAddress, _places: ModelPlaces) -> ScriptedModel:
    if address.name == "missing":
        raise ModelUnavailable(f"{address} is not there.", "Choose another.")
    return ScriptedModel(address)
