"""The rules by which a persona's answers are checked; each tells what is wrong and how to mend it.

Does not know what happens to an answer that breaks one. Third parties add rules through entry points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol, Self

from pydantic import Field, ValidationError, model_validator

from agents.definitions import problems_of
from agents.errors import PersonaInvalid
from agents.phrases import Language, compiled, find, in_every_language, phrases, straight
from agents.plugins import load_plugin
from agents.quality import LEAKED_WORDS, leaked_prompt
from agents.schemas import Frozen, RuleSpec, Text


class RuleContext(Frozen):
    """What an answer is checked against: the persona's system prompt and the question."""

    system_prompt: str = ""
    question: str = ""


class Violation(Frozen):
    """A broken rule; the message reads on from "the answer was refused: " and says how to mend it."""

    rule: str
    message: str


class Rule(Protocol):
    """Whatever checks an answer. A plugin in `understudy.rules` is called with the rule's parameters."""

    @property
    def name(self) -> str:
        """Return the name by which personas ask for the rule."""

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return what is wrong with the answer, or None."""


class Length(Frozen):
    """The answer has between `min_characters` and `max_characters`, outer blanks not counted."""

    name: ClassVar[str] = "length"
    min_characters: int = Field(default=20, ge=0)
    max_characters: int = Field(default=500, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters must not be above max_characters")
        return self

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for an answer that is too short or too long."""
        count = len(answer.strip())
        if count < self.min_characters:
            return _broken(self, f"it has {count} characters, fewer than {self.min_characters}, so say more")
        if count > self.max_characters:
            return _broken(
                self, f"it has {count} characters, more than {self.max_characters}, so say it shorter"
            )
        return None


class Acknowledgement(Frozen):
    """The answer takes up the other person's matter before anything else."""

    name: ClassVar[str] = "acknowledgement"
    language: Language = "en"
    within_characters: int = Field(default=160, ge=1)

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for an opening without thanks, regret or understanding."""
        opening = answer.strip()[: self.within_characters]
        if find(phrases(self.language).acknowledgement, opening):
            return None
        return _broken(
            self,
            f"it opens with {_head(opening)!r} and acknowledges nothing, so first thank the person or say "
            "that you understand or are sorry",
        )


class ActionPlan(Frozen):
    """The answer says who is going to do what, at least `steps` times."""

    name: ClassVar[str] = "action_plan"
    language: Language = "en"
    steps: int = Field(default=1, ge=1)

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for an answer in which nobody commits to doing anything."""
        commitments = compiled(phrases(self.language).commitments())
        count = len({match.group().lower() for match in commitments.finditer(straight(answer))})
        if count >= self.steps:
            return None
        return _broken(
            self,
            f"it has {count} of at least {self.steps} concrete actions, so say who does what, "
            "such as 'I will send …' or 'Marco is coming to …'",
        )


class Timeline(Frozen):
    """The answer says by which day or hour something happens; "soon" is not a time."""

    name: ClassVar[str] = "timeline"
    language: Language = "en"

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for an answer without a day, an hour or a span of time."""
        known = phrases(self.language)
        if find(known.timeline, compiled(known.not_timeline).sub(" ", straight(answer))):
            return None
        return _broken(self, "it says no time, so name a day or an hour, such as 'by 4 pm today'")


class ProfessionalTone(Frozen):
    """The answer neither swears, brushes off, shouts nor gushes."""

    name: ClassVar[str] = "professional_tone"
    language: Language = "en"
    max_exclamation_marks: int = Field(default=3, ge=0)

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for the first thing that a professional would not write."""
        hostile = find(phrases(self.language).hostile, answer)
        if hostile:
            return _broken(self, f"it says {hostile!r}, so stay friendly and professional")
        shouted = SHOUTING.search(answer)
        if shouted:
            return _broken(self, f"it shouts {_head(shouted.group())!r}, so write it in small letters")
        marks = answer.count("!")
        if marks > self.max_exclamation_marks:
            return _broken(
                self, f"it has {marks} exclamation marks, so use {self.max_exclamation_marks} at most"
            )
        return None


class NoSimulatedConversation(Frozen):
    """The answer is one turn: it does not go on to write somebody's lines (`User: …`, `Jamie: …`)."""

    name: ClassVar[str] = "no_simulated_conversation"
    speakers: tuple[Text, ...] = ()

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for a speaker's label or a chat template's marker."""
        labels = "|".join([*in_every_language("roles"), *(re.escape(speaker) for speaker in self.speakers)])
        label = re.search(rf"(?:^|[\n.!?…][\"'”’)]*)[\s>*_#-]*(?:{labels})\s*[*_]*:", answer, re.IGNORECASE)
        found = TEMPLATE_MARKER.search(answer) or label
        if not found:
            return None
        return _broken(
            self,
            f"it writes the line of a speaker ({found.group().strip()!r}), so give only your own answer "
            "without names in front",
        )


class NoLeakedPrompt(Frozen):
    """The answer does not repeat `words` words in a row of the system prompt, nor talk about it."""

    name: ClassVar[str] = "no_leaked_prompt"
    words: int = Field(default=LEAKED_WORDS, ge=4)

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation that quotes what the answer repeats."""
        leak = leaked_prompt(answer, context.system_prompt, run=self.words)
        return _broken(self, leak) if leak else None


class NoMarkdown(Frozen):
    """The answer is plain prose, fit for a text message or a voice."""

    name: ClassVar[str] = "no_markdown"

    def check(self, answer: str, context: RuleContext) -> Violation | None:
        """Return a violation for the first heading, list, table, emphasis, link or code."""
        for what, pattern in MARKDOWN.items():
            found = pattern.search(answer)
            if found:
                return _broken(
                    self, f"it has {what} ({_head(found.group().strip())!r}), so write plain sentences"
                )
        return None


SHOUTING = re.compile(r"\b[A-ZÀ-Þ]{2,}(?:'[A-Z]+)?(?:[\s,!-]+[A-ZÀ-Þ]{2,}(?:'[A-Z]+)?){2,}\b")
TEMPLATE_MARKER = re.compile(
    r"<\|\w+\|>|\[/?INST\]|</?s>|^#+\s*(?:human|instruction|response)\b", re.I | re.M
)
MARKDOWN = {
    "a code block": re.compile(r"```"),
    "a heading": re.compile(r"^#{1,6}\s+\S.*", re.MULTILINE),
    "a table": re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE),
    "a list": re.compile(r"(?:^[ \t]*(?:[-*+•]|\d{1,2}[.)])[ \t]+\S.*(?:\n\s*|\Z)){2,}", re.MULTILINE),
    "emphasis": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__|(?<![\w*])\*[^\s*][^*\n]*\*(?![\w*])"),
    "a link": re.compile(r"\[[^\]\n]+\]\([^)\n]+\)"),
    "code": re.compile(r"`[^`\n]+`"),
}


def open_rule(spec: RuleSpec) -> Rule:
    """Return a rule; raise NotFound for an unknown name, pydantic's ValidationError for a parameter."""
    rule: Rule = load_plugin("rules", spec.rule)(**spec.parameters)
    return rule


def open_rules(specs: Iterable[RuleSpec]) -> tuple[Rule, ...]:
    """Return the rules that a persona lists, in order.

    Raises NotFound for an unknown rule, PersonaInvalid naming rule, parameter and value for a bad one.
    """
    return tuple(map(_open_or_explain, specs))


def _open_or_explain(spec: RuleSpec) -> Rule:
    try:
        return open_rule(spec)
    except ValidationError as error:
        schema = load_plugin("rules", spec.rule)
        reasons = "; ".join(
            f"{'.'.join(map(str, problem.place)) or 'parameters'}: {problem.what}"
            for problem in problems_of(error, schema)
        )
        raise PersonaInvalid(f"The rule {spec.rule!r} cannot be used: {reasons}.") from error


def check_answer(rules: Sequence[Rule], answer: str, context: RuleContext) -> tuple[Violation, ...]:
    """Return every rule that the answer breaks, in the order of the rules."""
    found = (rule.check(answer, context) for rule in rules)
    return tuple(violation for violation in found if violation)


def _broken(rule: Rule, message: str) -> Violation:
    return Violation(rule=rule.name, message=message)


def _head(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
