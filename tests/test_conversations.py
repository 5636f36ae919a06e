"""Conversations: scenes that differ, turns that are cleaned and refused, bands, views, prices."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.chat import ChatAnswer, ChatRequest, Usage
from agents.conversations import Spoken, Turn, band_problems, repeats, transcript_tokens, views
from agents.errors import InputError
from agents.kinds import LENGTHS, load_kinds
from agents.plans import load_plan
from agents.plans.seats import REPLACEMENTS, lay_out
from agents.prices import load_prices
from agents.scenes import Scene, set_scene
from agents.turns import clean_turn, instruction, turn_problems, turn_request, write_conversation

KINDS = load_kinds()
CELLS = [(kind.name, length) for kind in KINDS.kinds for length in kind.topics]


def scene(name: str = "manager-developer", length="short", index: int = 0, seed: int = 0) -> Scene:
    kind = KINDS.named(name)
    assert kind is not None
    return set_scene(KINDS, kind, length, index=index, seed=seed)


def answer(text: str, finish: str = "stop") -> ChatAnswer:
    usage = Usage(prompt_tokens=1, completion_tokens=len(text.split()))
    return ChatAnswer(text=text, finish_reason=finish, usage=usage, seconds=0.0)


def words(messages) -> int:
    return sum(len(message.content.split()) for message in messages)


@given(st.sampled_from(CELLS), st.integers(0, 500), st.integers(0, 10))
def test_every_scene_can_be_played_within_its_band(cell, index: int, seed: int) -> None:
    found = scene(*cell, index=index, seed=seed)
    kind, band = KINDS.named(cell[0]), KINDS.bands[cell[1]]
    people = len(found.participants)
    assert kind.least <= people <= kind.most
    assert found.participants[0].persona == kind.cast[0]
    assert len({person.name for person in found.participants}) == people
    assert len({person.persona for person in found.participants}) == people
    assert max(people, band.exchanges[0]) <= found.exchanges <= band.exchanges[1] == len(found.order)
    assert found.order[0] == 0
    assert set(found.order[: found.exchanges]) == set(range(people))
    assert all(before != after for before, after in pairwise(found.order))
    assert band.tokens[0] < found.tokens < band.tokens[1]


def test_scenes_of_a_kind_differ_and_take_turns_with_the_topics() -> None:
    found = [scene(index=index) for index in range(500)]
    assert len({(one.topic, one.project, one.circumstance) for one in found}) == 500
    assert set(Counter(one.topic for one in found).values()) == {100}
    assert found[:5] == [scene(index=index) for index in range(5)]
    assert found[0] != scene(index=0, seed=1)


def test_every_seat_and_every_replacement_has_a_scene_of_its_own() -> None:
    seats = lay_out(load_plan("full-2500"), 300, 7)
    positions = [seat + n * 300 for n in range(REPLACEMENTS + 1) for seat in range(300)]
    assert len({seats.scene(at).model_dump_json(exclude={"participants"}) for at in positions}) == 1200
    assert Counter(seats.cell(at).length for at in range(300)) == {"short": 150, "medium": 105, "long": 45}
    near = seats.neighbours(0)
    assert 0 not in near
    assert {seats.cell(at) for at in near} == {seats.cell(0)}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("share", [0.3, 0.8, 1.2])
def test_a_writer_of_any_pace_is_led_into_the_band(length: str, share: float) -> None:
    async def ask(request: ChatRequest) -> ChatAnswer:
        count = min(request.sampling.max_tokens, max(6, round(request.sampling.max_tokens * share)))
        return answer(" ".join(f"word{request.sampling.seed}x{at}" for at in range(count)) + ".")

    for index in range(8):
        name = {"short": "brief-standups", "medium": "problem-solving", "long": "crisis-management"}[length]
        take = asyncio.run(write_conversation(scene(name, length, index), ask, words, seed=index))
        assert not take.problems, take.problems
        assert take.calls == len(take.spoken.turns)


def test_a_turn_that_is_refused_is_asked_for_again_with_the_reason_and_no_more_than_twice() -> None:
    asked: list[ChatRequest] = []

    async def ask(request: ChatRequest) -> ChatAnswer:
        asked.append(request)
        return answer(
            "Yes." if len(asked) > 1 else "The login page is done, and the search needs two more days."
        )

    take = asyncio.run(write_conversation(scene(), ask, words, seed=0))
    assert (take.calls, len(take.spoken.turns), take.whole) == (4, 1, False)
    assert "fewer than 4" in take.problems[0]
    assert "fewer than 4" not in asked[1].messages[0].content
    assert all("fewer than 4" in request.messages[0].content for request in asked[2:])
    assert len({request.sampling.seed for request in asked}) == 4


def test_a_speaker_is_asked_as_its_persona_with_the_others_named() -> None:
    spoken = speak("We are late by two days.", "The supplier moved the date.", "Then we tell them today.")
    me, other = spoken.scene.participants[1], spoken.scene.participants[0]
    request = turn_request(spoken, 1, instruction(spoken, 1), seed=1)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[0].content.startswith("You are a senior software developer")
    assert f"Your name is {me.name}" in request.messages[0].content
    assert request.messages[1].content == f"{other.label}: We are late by two days."


def speak(*texts: str, name: str = "manager-developer") -> Spoken:
    place = scene(name)
    said = tuple(Turn(speaker=who, text=text) for who, text in zip(place.order, texts, strict=False))
    return Spoken(scene=place, turns=said)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("{me}: I will look at it.", "I will look at it."),
        ("**{me} (Developer):** I will look at it.", "I will look at it."),
        ("{me}, I will look at it.", "I will look at it."),
        ("I will look at it.\n{other} (Project Manager): Thanks.", "I will look at it."),
        ("I will look at it.\n\n{other}: Thanks.\n{me}: Bye.", "I will look at it."),
        ('"I will look at it."', "I will look at it."),
        ("Project Manager: I will look at it.", "I will look at it."),
        ("{other}, one question: when?", "{other}, one question: when?"),
        ("Two things: first this, then that.", "Two things: first this, then that."),
    ],
)
def test_labels_and_other_speakers_are_cut_away(said: str, kept: str) -> None:
    place = scene()
    names = {"other": place.participants[0].name, "me": place.participants[1].name}
    assert clean_turn(answer(said.format(**names)), place, 1) == kept.format(**names)


def test_a_turn_that_ran_out_of_room_ends_with_its_last_sentence() -> None:
    assert clean_turn(answer("I will look. And then we", "length"), scene(), 0) == "I will look."


def test_turns_that_repeat_echo_or_speak_to_themselves_are_refused() -> None:
    line = "The supplier moved the date by a week and nobody told us before this very morning."
    spoken = speak(line)
    told = instruction(spoken, 1)
    me = spoken.scene.participants[1].name
    assert not turn_problems("Then I will call them at noon and ask why.", spoken, 1, told=told)
    assert "repeats what" in turn_problems(f"Right. {line} And so on we go.", spoken, 1, told=told)[0]
    assert "instructions" in turn_problems(told, spoken, 1, told=told)[0]
    assert "instructions" in turn_problems(spoken.scene.told_to(1), spoken, 1, told=told)[0]
    assert (
        f"{me} speaks to {me}" in turn_problems(f"Thanks for that, {me}. I agree.", spoken, 1, told=told)[0]
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_bands_are_kept_at_both_ends(length) -> None:
    band = KINDS.bands[length]
    (fewest, most), (low, high) = band.exchanges, band.tokens
    assert not band_problems(band, fewest, low)
    assert not band_problems(band, most, high)
    for exchanges, tokens, word in [
        (fewest - 1, low, "fewer"),
        (most + 1, low, "more"),
        (fewest, low - 1, "fewer"),
        (fewest, high + 1, "more"),
    ]:
        assert len(band_problems(band, exchanges, tokens)) == 1
        assert word in band_problems(band, exchanges, tokens)[0]


def test_views_join_what_others_say_and_end_with_ones_own_last_turn() -> None:
    spoken = speak("One point.", "Two points.", "Three points.", "Four points.", name="manager-developer-qa")
    order = spoken.scene.order[:4]
    found = dict(views(spoken))
    for speaker, person in enumerate(spoken.scene.participants):
        messages = found[person.persona]
        own = [turn.text for turn in spoken.turns if turn.speaker == speaker]
        assert [message.content for message in messages if message.role == "assistant"] == own
        assert messages[-1].role == "assistant"
        assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert found["manager"][0].content == spoken.scene.told_to(0)
    last = spoken.scene.participants[order[2]]
    heard = found[last.persona][0].content
    assert heard.split("\n\n") == list(spoken.transcript[:2])


def test_tokens_are_those_of_the_transcript() -> None:
    spoken = speak("One point.", "Two points.")
    assert transcript_tokens(spoken, words) == len(" ".join(spoken.transcript).split())


def test_a_conversation_that_nearly_repeats_another_is_found_whatever_the_names() -> None:
    first = speak("The search is slow since Monday.", "I will look at the index today.")
    second = first.model_copy(update={"scene": scene(index=3)})
    assert first.id != second.id
    assert repeats(second, [first])
    assert not repeats(speak("The launch moves to May.", "Who tells the client about it?"), [first])


def test_prices_give_the_two_points_of_reference_and_refuse_nonsense(tmp_path) -> None:
    prices = load_prices()
    ranges = [prices.estimate(size.conversations * size.tokens_each) for size in prices.references]
    assert [(size.tokens, size.low, size.high) for size in ranges] == [
        (2_000_000, 80, 120),
        (800_000, 30, 50),
    ]
    path = tmp_path / "prices.yaml"
    path.write_text("training:\n  - {low: 9, high: 4}\n")
    with pytest.raises(InputError, match=r"prices.yaml:2: training\[0\]: low should not be above high"):
        load_prices(path)
    path.write_text("training:\n  - {up_to_tokens: 5, low: 1, high: 4}\n")
    with pytest.raises(InputError, match="end with a price without"):
        load_prices(path)
