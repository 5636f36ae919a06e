"""The third stage: the persona's ideal answer to a document.

Does not know how answers are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.chat import ChatRequest, Sampling
from agents.prompts import render
from agents.quality import overlap, text_problems
from agents.rules import RuleContext, check_answer, open_rules
from agents.schemas import Persona, chat

VERSION = "response/1"
MIN_WORDS = 50
SIMILARITY = 0.8
COPIED = 0.5
TOKENS_PER_WORD = 2.0


def response_request(
    persona: Persona,
    document: str,
    document_type: str,
    *,
    words: int,
    seed: int,
    guidance: str | None = None,
    reasons: Sequence[str] = (),
) -> ChatRequest:
    """Ask for the answer that shows all the persona's traits at once."""
    prompt = render(
        "response",
        document=document,
        document_type=document_type,
        traits=", ".join(trait.name.lower() for trait in persona.traits),
        words=words,
        guidance=guidance,
        reasons=reasons,
    )
    return ChatRequest(
        messages=chat(("system", persona.system_prompt), ("user", prompt)),
        sampling=Sampling(
            temperature=min(persona.sampling.temperature, 1.0),
            top_p=0.95,
            max_tokens=int(words * TOKENS_PER_WORD),
            frequency_penalty=0.5,
            seed=seed,
        ),
    )


def response_problems(persona: Persona, document: str, text: str, twin: str | None) -> tuple[str, ...]:
    """Return why a response is refused: its quality, the persona's rules, or an earlier twin."""
    problems = text_problems(text, min_words=MIN_WORDS, system_prompt=persona.system_prompt)
    context = RuleContext(system_prompt=persona.system_prompt, question=document)
    violations = check_answer(open_rules(persona.validation), text, context)
    problems += tuple(violation.message for violation in violations)
    if overlap(text, document) >= COPIED:
        problems += ("it copies the document, so answer it instead",)
    if twin is not None:
        problems += ("it nearly repeats an earlier response",)
    return problems
