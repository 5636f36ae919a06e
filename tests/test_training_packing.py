"""Packing and pace: every token once, nobody sees another's conversation, the same plan every time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.base import Hyperparameters
from tasks.training.pace import CheckpointClock, Pace, learning_rate
from tasks.training.packing import Example, cut, pack, plan_steps, plan_validation, shared_length

PROMPT = (7, 7, 8, 9)


@st.composite
def conversations(draw: st.DrawFn) -> list[Example]:
    found = []
    for _ in range(draw(st.integers(1, 20))):
        question = draw(st.lists(st.integers(10, 20), min_size=1, max_size=30))
        answer = draw(st.lists(st.integers(21, 30), min_size=1, max_size=25))
        ids = (*PROMPT, *question, *answer)
        found.append(Example(ids, (*[False] * (len(ids) - len(answer)), *[True] * len(answer))))
    return found


SETTINGS = st.builds(
    Hyperparameters,
    epochs=st.integers(1, 3),
    sequence_tokens=st.integers(64, 200),
    batch_sequences=st.integers(1, 3),
    seed=st.integers(0, 5),
)


def learned(example: Example) -> list[int]:
    return [token for token, wanted in zip(example.ids, example.learned, strict=True) if wanted]


@given(conversations(), SETTINGS)
def test_every_epoch_learns_every_answer_once(examples: list[Example], settings: Hyperparameters) -> None:
    epochs: list[list[int]] = [[]]
    tokens = 0
    for step in plan_steps(examples, settings):
        epochs[-1] += [label for sequence in step.sequences for label in sequence.labels]
        tokens += step.tokens
        if step.epoch_ends:
            assert step.epoch_ends == len(epochs)
            epochs.append([])
    wanted = sorted(token for example in examples for token in learned(example))
    assert [sorted(epoch) for epoch in epochs] == [wanted] * settings.epochs + [[]]
    assert tokens == settings.epochs * sum(len(example.ids) for example in examples)


@given(conversations(), SETTINGS)
def test_all_sequences_have_one_length_within_the_limit(
    examples: list[Example], settings: Hyperparameters
) -> None:
    steps = plan_steps(examples, settings)
    sequences = [sequence for step in steps for sequence in step.sequences]
    lengths = {len(field) for s in sequences for field in (s.ids, s.positions, s.segments)}
    assert len(lengths) == 1
    assert lengths.pop() <= settings.sequence_tokens
    assert all(1 <= len(step.sequences) <= settings.batch_sequences for step in steps)


@given(conversations(), SETTINGS)
def test_a_conversation_reads_in_its_sequence_as_it_would_alone(
    examples: list[Example], settings: Hyperparameters
) -> None:
    alone = []
    for sequence in plan_validation(examples, settings):
        places = list(zip(sequence.segments, sequence.positions, sequence.ids, strict=True))
        beginning = [(at, token) for segment, at, token in places if segment == 0]
        for number in range(1, max(sequence.segments) + 1):
            own = [(at, token) for segment, at, token in places if segment == number]
            assert [at for at, _ in beginning + own] == list(range(len(beginning + own)))
            alone.append(tuple(token for _, token in beginning + own))
    assert sorted(alone) == sorted(example.ids for example in examples)


@given(conversations(), SETTINGS)
def test_the_same_seed_gives_the_same_plan(examples: list[Example], settings: Hyperparameters) -> None:
    assert plan_steps(examples, settings) == plan_steps(list(examples), settings)


def test_epochs_come_in_different_orders() -> None:
    examples = [Example((1, 10 + i, 30), (False, False, True)) for i in range(50)]
    first, second = plan_steps(examples, Hyperparameters(epochs=2, sequence_tokens=512))
    assert first.sequences[0].ids != second.sequences[0].ids


def test_what_is_shared_ends_before_the_token_that_first_has_to_be_told() -> None:
    same = Example((1, 2, 3, 4), (False, False, False, True))
    other = Example((1, 2, 3, 5), (False, False, False, True))
    assert shared_length([same, other]) == 2
    assert shared_length([same]) == 0
    sequence = pack([same, other], 2, 8)
    assert sequence.ids == (1, 2, 3, 4, 3, 5, 0, 0)
    assert sequence.segments == (0, 0, 1, 1, 2, 2, -1, -1)
    assert sequence.positions == (0, 1, 2, 3, 2, 3, 0, 0)
    assert [
        (sequence.ids[row], label) for row, label in zip(sequence.rows, sequence.labels, strict=True)
    ] == [
        (3, 4),
        (3, 5),
    ]


def test_a_conversation_without_a_word_left_to_learn_is_dropped() -> None:
    long = Example((1, 2, 3, 4, 5), (False, False, False, True, True))
    assert cut(long, 3) is None
    assert cut(long, 4) == Example((1, 2, 3, 4), (False, False, False, True))


def test_thousands_of_conversations_are_planned_with_little_padding() -> None:
    examples = [
        Example((1, *[2] * (20 + i % 150), 3), (*[False] * (21 + i % 150), True)) for i in range(3000)
    ]
    sequences = plan_validation(examples, Hyperparameters(sequence_tokens=512))
    used = sum(segment >= 0 for s in sequences for segment in s.segments)
    assert used / sum(len(s.segments) for s in sequences) > 0.97


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_falls_without_reaching_nothing(total: int, warmup: float) -> None:
    settings = Hyperparameters(learning_rate=1e-3, warmup_ratio=warmup)
    rates = [learning_rate(step, total, settings) for step in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-3)
    assert min(rates) > 0
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))


def test_the_first_step_does_not_spoil_the_estimate() -> None:
    pace = Pace()
    assert pace.left(10) is None
    pace.add(9.0)
    assert pace.left(2) == 18.0
    pace.add(1.0)
    pace.add(3.0)
    assert pace.left(10) == 20.0


def test_checkpoints_wait_fifty_times_their_own_time() -> None:
    clock = CheckpointClock(last=100.0)
    assert clock.is_due(100.0)
    clock.kept(100.0, 100.5)
    assert not clock.is_due(125.0)
    assert clock.is_due(126.0)
