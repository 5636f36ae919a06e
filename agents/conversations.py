"""Workplace conversations as they were spoken: transcript, checks of the whole, every participant's view.

Does not know how the turns were written, nor where conversations are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.kinds import Band
from agents.quality import looping, near_duplicate
from agents.scenes import Scene
from agents.schemas import Frozen, Message, Messages, chat, fingerprint

SIMILARITY = 0.6

CountTokens = Callable[[Messages], int]


class Turn(Frozen):
    """What one of the participants says."""

    speaker: int
    text: str


class Spoken(Frozen):
    """A conversation that was written: its scene, its turns and what they come to.

    `tokens` are those of the transcript, `example_tokens` those of all its views, system prompts and
    template included; both as the base model counts them.
    """

    scene: Scene
    turns: tuple[Turn, ...]
    tokens: int = 0
    example_tokens: int = 0

    @property
    def id(self) -> str:
        """Return the identity, which is the content."""
        return fingerprint(self.scene.kind, self.scene.length, *self.transcript)

    @property
    def transcript(self) -> tuple[str, ...]:
        """Return the turns as lines with the speakers' names."""
        return tuple(f"{self.scene.participants[t.speaker].label}: {t.text}" for t in self.turns)


def heard(spoken: Spoken, speaker: int) -> Messages:
    """Return the turns as this speaker heard and said them: own turns are the assistant's."""
    messages: list[Message] = []
    for turn, line in zip(spoken.turns, spoken.transcript, strict=True):
        if turn.speaker == speaker:
            messages.append(Message(role="assistant", content=turn.text))
        elif messages and messages[-1].role == "user":
            messages[-1] = Message(role="user", content=f"{messages[-1].content}\n\n{line}")
        else:
            messages.append(Message(role="user", content=line))
    return tuple(messages)


def views(spoken: Spoken) -> list[tuple[str, Messages]]:
    """Return the conversation as each participant saw it: the persona, and messages up to its last turn.

    The others' turns are user turns with their names, several in a row as one. Who opens the conversation
    answers the scene.
    """
    found: list[tuple[str, Messages]] = []
    for speaker, participant in enumerate(spoken.scene.participants):
        messages = heard(spoken, speaker)
        last = max((at for at, m in enumerate(messages) if m.role == "assistant"), default=-1)
        messages = messages[: last + 1]
        if messages and messages[0].role == "assistant":
            messages = chat(("user", spoken.scene.told_to(speaker))) + messages
        if messages:
            found.append((participant.persona, messages))
    return found


def transcript_tokens(spoken: Spoken, count: CountTokens) -> int:
    """Return the tokens of the transcript with its speakers' names, without the chat template's own."""
    return count(chat(("user", "\n".join(spoken.transcript)))) - count(chat(("user", "")))


def conversation_problems(spoken: Spoken) -> tuple[str, ...]:
    """Return why a whole conversation is refused: outside its band, or going round in circles."""
    loop = looping("\n".join(turn.text for turn in spoken.turns))
    problems = band_problems(spoken.scene.band, len(spoken.turns), spoken.tokens)
    return (*problems, loop) if loop else problems


def band_problems(band: Band, exchanges: int, tokens: int) -> tuple[str, ...]:
    """Return how a conversation misses its band."""
    problems: list[str] = []
    for name, value, (low, high) in (
        ("exchanges", exchanges, band.exchanges),
        ("tokens", tokens, band.tokens),
    ):
        if value < low:
            problems.append(
                f"the conversation has {value} {name}, fewer than {low}, so say more in each turn"
            )
        if value > high:
            problems.append(
                f"the conversation has {value} {name}, more than {high}, so be brief in each turn"
            )
    return tuple(problems)


def repeats(spoken: Spoken, earlier: Sequence[Spoken]) -> bool:
    """Tell whether a conversation nearly repeats an earlier one, names aside."""
    texts = ["\n".join(turn.text for turn in other.turns) for other in earlier]
    own = "\n".join(turn.text for turn in spoken.turns)
    return near_duplicate(own, texts, threshold=SIMILARITY) is not None
