"""The words that rules and quality checks listen for, read from phrases.yaml, language by language.

Does not know what a hit means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, get_args

from agents.definitions import parse_definition, read_text, validate_definition
from agents.schemas import Frozen

Language = Literal["en", "es", "fr", "de"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
FILE = Path(__file__).with_suffix(".yaml")


class Phrases(Frozen):
    """The regular expressions of one language, by what they tell."""

    acknowledgement: tuple[str, ...]
    verbs: tuple[str, ...]
    participles: tuple[str, ...]
    actions: tuple[str, ...]
    timeline: tuple[str, ...]
    not_timeline: tuple[str, ...]
    hostile: tuple[str, ...]
    roles: tuple[str, ...]
    refusal: tuple[str, ...]
    machine: tuple[str, ...]
    prompt_talk: tuple[str, ...]
    placeholders: tuple[str, ...]

    def commitments(self) -> tuple[str, ...]:
        """Return the expressions for somebody who is going to do something."""
        verb, participle = (f"(?:{'|'.join(words)})" for words in (self.verbs, self.participles))
        return tuple(
            action.replace("{verb}", verb).replace("{participle}", participle) for action in self.actions
        )


class AllPhrases(Frozen):
    """The phrases of every language."""

    en: Phrases
    es: Phrases
    fr: Phrases
    de: Phrases


@cache
def all_phrases() -> AllPhrases:
    """Return the shipped phrases; raise InputError with the line when the file was broken."""
    return validate_definition(parse_definition(read_text(FILE), FILE.name), AllPhrases)


def phrases(language: Language) -> Phrases:
    """Return the phrases of a language."""
    found: Phrases = getattr(all_phrases(), language)
    return found


@cache
def in_every_language(kind: str) -> tuple[str, ...]:
    """Return the expressions of one kind, such as `refusal`, of all languages."""
    return tuple(entry for language in LANGUAGES for entry in getattr(phrases(language), kind))


@lru_cache(maxsize=64)  # several expressions look at one text
def straight(text: str) -> str:
    """Return the text with straight apostrophes and single spaces, as the expressions expect it."""
    return " ".join(text.replace("’", "'").split())


def find(expressions: Sequence[str], text: str) -> str | None:
    """Return the first stretch of the text that one of the expressions matches between word boundaries."""
    found = compiled(tuple(expressions)).search(straight(text))
    return found.group() if found else None


@cache
def compiled(expressions: tuple[str, ...]) -> re.Pattern[str]:
    """Return one pattern for any of the expressions."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(expressions)})(?!\w)", re.IGNORECASE)
