"""The second stage: the realistic document that an idea becomes.

Does not know how documents are kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from agents.chat import ChatRequest, Sampling
from agents.prompts import render
from agents.quality import text_problems
from agents.schemas import chat

VERSION = "document/1"
MIN_WORDS = 100
SIMILARITY = 0.7
TOKENS_PER_WORD = 2.0
NAMES = (
    "Amara Osei", "Ben Whitlock", "Chiara Conti", "Daniel Reyes", "Elif Kaya", "Farah Haddad",
    "Grace Lindqvist", "Hugo Marchetti", "Ines Duarte", "Jonas Weber", "Kavya Nair", "Liam Doherty",
    "Mei Tanaka", "Nadia Petrov", "Omar Farouk", "Priya Menon", "Quentin Dubois", "Rosa Alvarez",
    "Samuel Mensah", "Tova Bergman",
)  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "September", "October", "November")


def document_request(
    idea: str,
    document_type: str,
    *,
    words: int,
    seed: int,
    guidance: str | None = None,
    reasons: Sequence[str] = (),
) -> ChatRequest:
    """Ask for the document of an idea; the seed also chooses who writes to whom and when."""
    pick = random.Random(seed)  # noqa: S311  (variety, not security)
    author, reader = pick.sample(NAMES, 2)
    prompt = render(
        "document",
        idea=idea,
        document_type=document_type,
        article="an" if document_type[0] in "aeiou" else "a",
        author=author,
        reader=reader,
        date=f"{pick.randint(1, 28)} {pick.choice(MONTHS)}",
        words=words,
        guidance=guidance,
        reasons=reasons,
    )
    return ChatRequest(
        messages=chat(
            ("system", f"You are {author}. You write clear, detailed documents at work."), ("user", prompt)
        ),
        sampling=Sampling(
            temperature=0.7,
            top_p=0.95,
            max_tokens=int(words * TOKENS_PER_WORD),
            frequency_penalty=0.5,
            seed=seed,
        ),
    )


def document_problems(text: str, twin: str | None) -> tuple[str, ...]:
    """Return why a document is refused."""
    problems = text_problems(text, min_words=MIN_WORDS)
    if twin is not None:
        problems += ("it nearly repeats an earlier document",)
    return problems
