"""Pairs of answers to one prompt: what the persona says, and what the untuned student says by itself.

Does not know where prompts come from or how pairs are kept. Questions that reveal behaviour come from a
persona's constitution, sentences in the first person (Maiya et al. 2025, Open Character Training).
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.chat import ChatRequest, Sampling
from agents.prompts import render
from agents.quality import looping, overlap, text_problems, words
from agents.schemas import Persona, chat

QUESTION = "question/1"
CHOSEN = "chosen/1"
REJECTED = "rejected/1"
QUESTION_TOKENS = 200
QUESTION_WORDS = 12
LEAST_WORDS = 5
SIMILARITY = 0.6  # of two questions
ALIKE = 0.5  # of the two answers of a pair
NAMED = 0.6  # of a sentence's long words that a question must not say
LONG = 5  # letters
TOKENS_PER_WORD = 2.0
ANGLES = (
    "Make it an everyday matter.",
    "Make it urgent.",
    "Make the easy answer the wrong one.",
    "Let the person be upset.",
    "Let the person ask for something that they should not get as they ask it.",
    "Let something important be left out of the message.",
    "Let two people want different things.",
    "Make it technical.",
)


def question_request(
    persona: Persona, position: int, *, seed: int, reasons: Sequence[str] = ()
) -> ChatRequest:
    """Ask for a message that reveals whether a sentence of the constitution is true."""
    sentences = persona.constitution
    prompt = render(
        "question",
        display_name=persona.display_name,
        sentence=sentences[position % len(sentences)],
        angle=ANGLES[position // len(sentences) % len(ANGLES)],
        reasons=reasons,
    )
    sampling = Sampling(temperature=0.9, top_p=0.95, max_tokens=QUESTION_TOKENS, seed=seed)
    return ChatRequest(messages=chat(("user", prompt)), sampling=sampling)


def question_problems(sentence: str, text: str, twin: str | None) -> tuple[str, ...]:
    """Return why a question is refused: its quality, a twin, or that it names what it should reveal."""
    problems = text_problems(text, min_words=QUESTION_WORDS)
    named = {word for word in words(sentence) if len(word) >= LONG}
    if named and len(named & set(words(text))) >= NAMED * len(named):
        problems += ("it says what it should reveal, so do not use the words of the sentence",)
    if twin is not None:
        problems += (f"it nearly repeats an earlier question: {twin[:80]!r}",)
    return problems


def answer_request(
    prompt: str, *, system: str | None, limit: int, temperature: float, seed: int, reasons: Sequence[str] = ()
) -> ChatRequest:
    """Have a prompt answered in at most about `limit` words, with a system prompt or by the model itself."""
    mend = (
        f"\n\n(Your last answer was refused: {'; '.join(reasons)}. Mend that.)" if reasons and system else ""
    )
    asked = chat(("user", prompt + mend))
    return ChatRequest(
        messages=chat(("system", system)) + asked if system else asked,
        sampling=Sampling(
            temperature=min(temperature, 1.0), top_p=0.95, max_tokens=int(limit * TOKENS_PER_WORD), seed=seed
        ),
    )


def rejected_problems(chosen: str, text: str, _twin: str | None) -> tuple[str, ...]:
    """Return why the student's answer makes no pair: it breaks, or is nearly the chosen one.

    That it is a worse answer is what it is for.
    """
    count = len(text.split())
    same = overlap(text, chosen) >= ALIKE
    found = (
        f"it has {count} words, fewer than {LEAST_WORDS}" if count < LEAST_WORDS else None,
        looping(text),
        "it is nearly the same as the chosen answer, which teaches nothing" if same else None,
    )
    return tuple(problem for problem in found if problem)
