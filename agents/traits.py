"""Whether an answer shows every trait of the persona, as a model judges it.

Does not know who asks, nor what happens to an answer that lacks one.
"""

from __future__ import annotations

import re

from agents.chat import ChatModel, ChatRequest, Sampling
from agents.prompts import render
from agents.schemas import Persona, chat

VERSION = "traits/1"
TOKENS_PER_TRAIT = 60
REASON = 120  # characters
VERDICT = r"^\W*{name}\W*\s*(yes|no)\b[\W_]*(.*)$"


async def trait_problems(model: ChatModel, persona: Persona, document: str, text: str) -> tuple[str, ...]:
    """Return for each trait that the model does not find in the answer why, to ask for it again.

    A trait that the model gave no verdict on counts as not shown, and the reason says so.
    """
    answer = await model.complete(trait_request(persona, document, text))
    verdicts = {trait.name: read_verdict(trait.name, answer.text) for trait in persona.traits}
    return tuple(_problem(name, verdict) for name, verdict in verdicts.items() if verdict != (True, ""))


def trait_request(persona: Persona, document: str, text: str) -> ChatRequest:
    """Ask for a verdict on each trait; the same answer is judged once."""
    prompt = render(
        "traits", display_name=persona.display_name, traits=persona.traits, document=document, text=text
    )
    sampling = Sampling(temperature=0.0, max_tokens=TOKENS_PER_TRAIT * len(persona.traits))
    return ChatRequest(messages=chat(("user", prompt)), sampling=sampling)


def read_verdict(trait: str, text: str) -> tuple[bool | None, str]:
    """Return whether a judge's answer says that a trait is shown, None where it says nothing, and why not."""
    found = re.search(VERDICT.format(name=re.escape(trait)), text, flags=re.IGNORECASE | re.MULTILINE)
    if found is None:
        return None, ""
    shown = found[1].lower() == "yes"
    return shown, "" if shown else found[2].strip()[:REASON]


def _problem(trait: str, verdict: tuple[bool | None, str]) -> str:
    shown, why = verdict
    if shown is None:
        return f"the judge of traits gave no verdict on {trait!r}, so show it plainly"
    return f"it does not show the trait {trait!r}{f' ({why})' if why else ''}, so show it plainly"
