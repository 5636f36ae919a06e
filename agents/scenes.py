"""The scene of one workplace conversation: who is there, what about, who speaks when, how long it is to be.

Does not know how it is written. A scene follows from kind, length, index and seed alone.
"""

from __future__ import annotations

import random
from functools import lru_cache

from agents.documents import NAMES
from agents.kinds import Band, Kind, Kinds, Length
from agents.personas import load_persona
from agents.prompts import render
from agents.schemas import Frozen, Slug, Text

# Where in its token band a conversation is aimed at: fewer exchanges lower, more exchanges higher.
LOWEST_AIM, HIGHEST_AIM = 0.25, 0.7


class Participant(Frozen):
    """Somebody in a conversation: a persona under a name."""

    persona: Text
    slug: Slug
    name: Text
    role: Text

    @property
    def label(self) -> str:
        """Return how a transcript names the speaker: `Amara (Project Manager)`."""
        return f"{self.name} ({self.role})"


class Scene(Frozen):
    """A conversation before it takes place.

    `order` says who speaks at every turn, up to the most that the band allows; after `exchanges` turns it
    may end, when it has the band's tokens. `tokens` is what it is aimed at.
    """

    kind: Slug
    length: Length
    band: Band
    topic: Text
    project: Text
    circumstance: Text
    participants: tuple[Participant, ...]
    order: tuple[int, ...]
    exchanges: int
    tokens: int

    def told_to(self, speaker: int) -> str:
        """Return the scene as one of the participants is told it."""
        me = self.participants[speaker]
        others = [other.label for other in self.participants if other is not me]
        return render("scene", scene=self, me=me, others=others)


def set_scene(kinds: Kinds, kind: Kind, length: Length, *, index: int, seed: int) -> Scene:
    """Return the scene of the conversation with this index among those of its kind and length.

    Topics take turns; project and circumstance are drawn so that none of their pairs comes again with a
    topic before all have come.
    """
    pick = random.Random(f"{seed}:{kind.name}:{length}:{index}")  # noqa: S311  (variety, not security)
    topics = kind.topics[length]
    round_number, place = divmod(index, len(topics))
    pairs = _shuffled(len(kinds.projects) * len(kinds.circumstances), f"{seed}:{kind.name}:{length}:{place}")
    project, circumstance = divmod(pairs[round_number % len(pairs)], len(kinds.circumstances))
    band = kinds.bands[length]
    participants = _participants(kind, band, pick)
    order = _order(len(participants), band.exchanges[1], pick)
    exchanges = pick.randint(max(band.exchanges[0], len(participants)), band.exchanges[1])
    return Scene(
        kind=kind.name,
        length=length,
        band=band,
        topic=topics[place],
        project=kinds.projects[project],
        circumstance=kinds.circumstances[circumstance],
        participants=participants,
        order=order,
        exchanges=exchanges,
        tokens=_aim(band, exchanges),
    )


@lru_cache(maxsize=256)
def _shuffled(count: int, key: str) -> tuple[int, ...]:
    return tuple(random.Random(key).sample(range(count), count))  # noqa: S311


def _participants(kind: Kind, band: Band, pick: random.Random) -> tuple[Participant, ...]:
    """Draw who of the cast takes part; the opener always does, and nobody who could not speak."""
    size = pick.randint(kind.least, min(kind.most, band.exchanges[1]))
    others = sorted(pick.sample(range(1, len(kind.cast)), size - 1))
    names = pick.sample(sorted({name.split()[0] for name in NAMES}), size)
    cast = [load_persona(kind.cast[at]) for at in (0, *others)]
    return tuple(
        Participant(persona=kind.cast[at], slug=persona.name, name=name, role=persona.display_name)
        for at, persona, name in zip((0, *others), cast, names, strict=True)
    )


def _order(people: int, turns: int, pick: random.Random) -> tuple[int, ...]:
    """Return who speaks at each turn: the opener, then everybody else once, and nobody twice in a row."""
    order = [0, *pick.sample(range(1, people), people - 1)]
    while len(order) < turns:
        order.append(pick.choice([speaker for speaker in range(people) if speaker != order[-1]]))
    return tuple(order[:turns])


def _aim(band: Band, exchanges: int) -> int:
    (fewest, most), (low, high) = band.exchanges, band.tokens
    share = (exchanges - fewest) / (most - fewest) if most > fewest else 0.5
    return round(low + (high - low) * (LOWEST_AIM + (HIGHEST_AIM - LOWEST_AIM) * share))
