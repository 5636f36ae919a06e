"""The first stage: an idea for a situation that tests the persona's traits.

Does not know how ideas are kept or in what order they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.chat import ChatRequest, Sampling
from agents.prompts import render
from agents.quality import text_problems
from agents.scenarios import Scenario
from agents.schemas import Persona, chat

VERSION = "idea/1"
MIN_WORDS = 15
MAX_TOKENS = 160
SIMILARITY = 0.6


def idea_request(
    persona: Persona,
    scenario: Scenario,
    situation: str,
    *,
    seed: int,
    guidance: str | None = None,
    reasons: Sequence[str] = (),
) -> ChatRequest:
    """Ask for one idea of the scenario that strains the persona's traits."""
    prompt = render(
        "idea",
        category=scenario.name,
        description=scenario.description,
        situation=situation,
        traits=", ".join(trait.name.lower() for trait in persona.traits),
        guidance=guidance,
        reasons=reasons,
    )
    return ChatRequest(
        messages=chat(("system", "You write short, concrete workplace situations."), ("user", prompt)),
        sampling=Sampling(
            temperature=0.8, top_p=0.95, max_tokens=MAX_TOKENS, frequency_penalty=0.3, seed=seed
        ),
    )


def idea_problems(text: str, twin: str | None) -> tuple[str, ...]:
    """Return why an idea is refused: its quality, or an earlier idea that it nearly repeats."""
    problems = text_problems(text, min_words=MIN_WORDS)
    if twin is not None:
        problems += (f"it nearly repeats an earlier idea: {twin[:80]!r}",)
    return problems
