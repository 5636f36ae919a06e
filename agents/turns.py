"""Write a workplace conversation with a model, turn by turn, each turn as its speaker's persona.

Does not know where conversations are kept, nor what happens to one that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from agents.chat import ChatAnswer, ChatRequest, Sampling
from agents.conversations import (
    CountTokens,
    Spoken,
    Turn,
    conversation_problems,
    heard,
    transcript_tokens,
    views,
)
from agents.personas import load_persona
from agents.prompts import render
from agents.quality import leaked_prompt, overlap, shingle_set, text_problems, whole_sentences
from agents.scenes import Scene
from agents.schemas import Frozen, chat, fingerprint, with_system
from agents.tariffs import total_cost

VERSION = "turn/1"
ASKS = 3
MIN_WORDS = 4
LEAST_WORDS, LEAST_TOKENS = 8, 24
REPEATED = 0.5
COPIED_WORDS = 12
WORDS_PER_TOKEN = 0.72
SLACK = 1.6
FREER = 0.15

Ask = Callable[[ChatRequest], Awaitable[ChatAnswer]]


class Take(Frozen):
    """One attempt at a conversation: what was written, why it is refused, what it took.

    `whole` says that it was spoken to its end; otherwise its problems are those of the last turn tried.
    """

    spoken: Spoken
    whole: bool = False
    problems: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = 0.0


async def write_conversation(
    scene: Scene, ask: Ask, count: CountTokens, *, seed: int, reasons: Sequence[str] = ()
) -> Take:
    """Write the scene's conversation with the model behind `ask`; `reasons` are what the last take lacked.

    A turn that is refused is asked for again with its reasons, `ASKS` times in all; when the last one is
    refused too, the take ends there with its problems. Otherwise it is checked against its band.
    """
    take = Take(spoken=Spoken(scene=scene, turns=()))
    for speaker in scene.order:
        take = await _speak(take, speaker, ask, count, seed=seed, reasons=reasons)
        if take.problems or _may_end(take.spoken):
            break
    return take if take.problems else _checked(take, count)


def _may_end(spoken: Spoken) -> bool:
    return len(spoken.turns) >= spoken.scene.exchanges and spoken.tokens >= spoken.scene.band.tokens[0]


async def _speak(
    take: Take, speaker: int, ask: Ask, count: CountTokens, *, seed: int, reasons: Sequence[str]
) -> Take:
    """Return the take with one more turn, or with the problems of a turn that was refused to the end."""
    spoken, refused = take.spoken, list(take.refused)
    problems: tuple[str, ...] = ()
    spent = {name: getattr(take, name) for name in ("calls", "prompt_tokens", "completion_tokens", "seconds")}
    cost = take.cost
    for number in range(ASKS):
        draw = int(fingerprint(str(seed), str(len(spoken.turns)), str(number)), 16) % 2**31
        told = instruction(spoken, speaker, reasons=(*reasons, *problems))
        answer = await ask(turn_request(spoken, speaker, told, seed=draw, retry=number))
        spent["calls"] += 1
        spent["prompt_tokens"] += answer.usage.prompt_tokens
        spent["completion_tokens"] += answer.usage.completion_tokens
        spent["seconds"] += answer.seconds
        cost = total_cost((cost, answer.cost))
        text = clean_turn(answer, spoken.scene, speaker)
        problems = turn_problems(text, spoken, speaker, told=told)
        if not problems:
            longer = spoken.model_copy(update={"turns": (*spoken.turns, Turn(speaker=speaker, text=text))})
            spoken = longer.model_copy(update={"tokens": transcript_tokens(longer, count)})
            break
        refused += [f"turn {len(spoken.turns) + 1}, ask {number + 1}: {problem}" for problem in problems]
    return take.model_copy(
        update={"spoken": spoken, "problems": problems, "refused": tuple(refused), "cost": cost, **spent}
    )


def _checked(take: Take, count: CountTokens) -> Take:
    """Return the take with what is wrong with the whole, and with the tokens of its views."""
    tokens = sum(count(with_system(load_persona(who), view)) for who, view in views(take.spoken))
    spoken = take.spoken.model_copy(update={"example_tokens": tokens})
    return take.model_copy(
        update={"spoken": spoken, "whole": True, "problems": conversation_problems(spoken)}
    )


def turn_request(spoken: Spoken, speaker: int, told: str, *, seed: int, retry: int = 0) -> ChatRequest:
    """Ask the speaker's persona for the next turn; `told` is its instruction, kept out of what was said.

    Every retry draws more freely: what was refused is mostly repetition.
    """
    persona = load_persona(spoken.scene.participants[speaker].persona)
    system = f"{persona.system_prompt.strip()}\n\n{spoken.scene.told_to(speaker)}\n\n{told}"
    said = heard(spoken, speaker) or chat(("user", spoken.scene.told_to(speaker)))
    return ChatRequest(
        messages=(*chat(("system", system)), *said),
        sampling=Sampling(
            temperature=min(persona.sampling.temperature + FREER * retry, 1.0),
            top_p=0.95,
            max_tokens=_size(spoken)[1],
            frequency_penalty=0.5 + FREER * retry,
            seed=seed,
        ),
    )


def instruction(spoken: Spoken, speaker: int, *, reasons: Sequence[str] = ()) -> str:
    """Return what the speaker is asked to do now, and in how many words."""
    people, turns = spoken.scene.participants, spoken.turns
    return render(
        "turn",
        me=people[speaker],
        others=[other.name for other in people if other is not people[speaker]],
        last=people[turns[-1].speaker].name if turns else "",
        opening=not turns,
        closing=len(turns) + 1 >= spoken.scene.exchanges,
        words=_size(spoken)[0],
        reasons=reasons,
    )


def _size(spoken: Spoken) -> tuple[int, int]:
    """Return the words to ask for and the most tokens of the next turn, so that the whole meets its band."""
    scene = spoken.scene
    left = max(1, scene.exchanges - len(spoken.turns))
    share = max(scene.tokens, scene.band.tokens[0]) - spoken.tokens
    room = scene.band.tokens[1] - spoken.tokens - LEAST_TOKENS * (left - 1)
    words = round(share / left * WORDS_PER_TOKEN / 5) * 5
    most = min(round(share / left * SLACK), room)
    return max(LEAST_WORDS, words), max(LEAST_TOKENS, most)


def clean_turn(answer: ChatAnswer, scene: Scene, speaker: int) -> str:
    """Return what the speaker says, without a label in front, ending where somebody else begins."""
    names = "|".join(re.escape(part) for p in scene.participants for part in (p.name, p.role))
    label = rf"\W{{0,3}}(?:{names})(?: \([^()\n]*\))?\W{{0,2}}:"
    own = re.escape(scene.participants[speaker].name)
    text = re.sub(rf"\A(?:{label}\W{{0,2}}\s|\W{{0,2}}{own}\W{{0,2}},)\s*", "", answer.text.strip())
    text = re.split(rf"^{label}", text, maxsplit=1, flags=re.MULTILINE)[0]
    text = whole_sentences(text) if answer.finish_reason == "length" else text.strip()
    quoted = len(text) > 1 and text[0] + text[-1] in {'""', "“”"} and text.count(text[0]) <= 2
    return text[1:-1].strip() if quoted else text


def turn_problems(text: str, spoken: Spoken, speaker: int, *, told: str) -> tuple[str, ...]:
    """Return why a turn is refused: its quality, or that it repeats what was said or what it was told."""
    scene, me = spoken.scene, spoken.scene.participants[speaker]
    prompt = load_persona(me.persona).system_prompt
    problems = text_problems(text, min_words=MIN_WORDS, system_prompt=prompt)
    echo = leaked_prompt(text, told) or _copy(text, scene.told_to(speaker), "its instructions")
    if echo and echo not in problems:
        problems += (echo,)
    if re.search(rf"(?:\A|[,!?] ){re.escape(me.name)}\s*[,.!?]", text):
        problems += (f"{me.name} speaks to {me.name}, so speak to the others",)
    copies = (
        _copy(text, turn.text, f"what {scene.participants[turn.speaker].name} said") for turn in spoken.turns
    )
    return (*problems, *[copy for copy in copies if copy][:1])


def _copy(text: str, other: str, what: str) -> str | None:
    """Say so when a text shares a long run of words with another, or half of all its pairs of words."""
    shared = shingle_set(text, COPIED_WORDS) & shingle_set(other, COPIED_WORDS)
    if shared or overlap(text, other) >= REPEATED:
        return f"it repeats {what}, so say something new"
    return None
