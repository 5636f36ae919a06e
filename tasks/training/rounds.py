"""When a round of training begins: thresholds, schedules, age, and how often at most.

Does not know where rounds are kept nor who asks; a refusal is a sentence that says why.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from agents.schemas import Frozen, Persona

Reason = Literal["asked", "threshold", "daily", "weekly", "refresh"]


class LastRound(Frozen):
    """What is remembered of a persona's latest round."""

    number: int
    begun: datetime
    open: bool
    failed: bool
    design: str
    base_model: str
    seed: int


class Standing(Frozen):
    """What the decision is made of: counts since the last round, and the newest version."""

    new_examples: int
    last: LastRound | None
    begun_today: int
    version: str | None
    version_at: datetime | None


def why_not(persona: Persona, standing: Standing, reason: Reason, at: datetime | None = None) -> str | None:
    """Return why no round begins now for this reason, or None when one does."""
    at = at or datetime.now(UTC)
    if reason != "asked" and standing.last is not None and standing.last.open:
        return f"Round {standing.last.number} of {persona.name} is under way."
    checks = {
        "asked": _unchanged,
        "threshold": _below_threshold,
        "daily": _unchanged,
        "weekly": _unchanged,
        "refresh": _too_young,
    }
    refusal = checks[reason](persona, standing, at)
    if refusal is None and reason in ("threshold", "daily", "weekly"):
        return _too_often(persona, standing, at)
    return refusal


def _below_threshold(persona: Persona, standing: Standing, _at: datetime) -> str | None:
    threshold = persona.retraining.threshold
    if standing.new_examples >= threshold:
        return None
    return f"{persona.name} has {standing.new_examples} of the {threshold} new examples that begin a round."


def _unchanged(persona: Persona, standing: Standing, _at: datetime) -> str | None:
    last = standing.last
    if last is None and not standing.new_examples:
        return f"{persona.name} has no examples yet."
    if last is None or last.failed or standing.new_examples:
        return None
    if (last.design, last.base_model) != (persona.design, persona.base_model):
        return None
    return (
        f"Nothing changed since round {last.number} of {persona.name}: no new example, the same design, "
        "the same base model. Nothing is trained."
    )


def _too_young(persona: Persona, standing: Standing, at: datetime) -> str | None:
    days = persona.retraining.refresh_days
    if standing.version is None or standing.version_at is None:
        return f"{persona.name} has no version yet to refresh."
    age = at - standing.version_at
    if age < timedelta(days=days):
        return f"{standing.version} is {age.days} days old; it is refreshed after {days}."
    return None


def _too_often(persona: Persona, standing: Standing, at: datetime) -> str | None:
    config = persona.retraining
    if standing.begun_today >= config.max_per_day:
        return f"{persona.name} has had {standing.begun_today} rounds in 24 hours, the most it may."
    if standing.last is not None:
        earliest = standing.last.begun + timedelta(hours=config.min_hours)
        if at < earliest:
            return f"The next round of {persona.name} may begin at {earliest:%Y-%m-%d %H:%M} UTC."
    return None
