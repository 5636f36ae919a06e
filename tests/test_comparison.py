"""Two versions held against each other: counts of examples, fields by path, notes on scores, words."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.personas import load_persona
from agents.schemas import Conversation, Messages, Persona, chat
from flows.differences import diff_text
from tasks.comparison.examples import (
    clip,
    compare_categories,
    compare_examples,
    content_key,
    missing_from,
    shared_prompts,
    spread,
)
from tasks.comparison.fields import changed_fields, changed_text
from tasks.comparison.report import Edition, Question
from tasks.comparison.scores import Scored
from tasks.comparison.sides import Base, Tuned, compare_sides, number_step, step_reason
from tasks.evaluation.intervals import mean_interval, score_interval
from tasks.evaluation.prompts import HeldOut
from tasks.evaluation.report import EvaluationReport, Side


def talk(number: int, system: str | None = "You are Jamie.") -> Messages:
    turns = chat(("user", f"Question {number}?"), ("assistant", f"Answer {number}."))
    return chat(("system", system)) + turns if system else turns


def example(number: int, category: str = "other", system: str | None = "You are Jamie.") -> Conversation:
    return Conversation(category=category, messages=talk(number, system))


def held(number: int, category: str = "other", system: str = "You are Jamie.") -> HeldOut:
    return HeldOut(origin=f"origin-{number}", category=category, messages=talk(number, system))


def keys(items: Sequence[Conversation]) -> Counter[str]:
    return Counter(content_key(item.messages) for item in items)


EXAMPLES = st.lists(
    st.builds(
        example,
        st.integers(0, 8),
        st.sampled_from("abc"),
        st.sampled_from([None, "You are A.", "You are B."]),
    ),
    max_size=25,
)


@given(EXAMPLES, EXAMPLES)
def test_what_was_there_and_what_came_less_what_went_is_what_is_there(before, after) -> None:
    added, removed = missing_from(after, before), missing_from(before, after)
    assert keys(before) + keys(added) - keys(removed) == keys(after)
    assert not keys(added) & keys(removed)
    found = compare_examples(before, after)
    assert found.before + found.added - found.removed == found.after
    assert found.kept == (keys(before) & keys(after)).total()
    assert len(found.added_samples) == min(3, found.added)
    assert len(found.removed_samples) == min(3, found.removed)


@given(EXAMPLES, st.randoms(use_true_random=False))
def test_neither_their_order_nor_a_new_system_prompt_makes_examples_new(items, shuffler) -> None:
    again = [
        Conversation(category=item.category, messages=chat(("system", "New!")) + item.messages[-2:])
        for item in items
    ]
    shuffler.shuffle(again)
    assert not compare_examples(items, again).differ


@given(EXAMPLES, EXAMPLES, EXAMPLES, EXAMPLES)
def test_categories_add_up_and_the_one_that_moved_most_comes_first(train, learned, held_out, asked) -> None:
    found = compare_categories((train, learned), (held_out, asked))
    assert sum(change.train_before for change in found) == len(train)
    assert sum(change.train_after for change in found) == len(learned)
    assert sum(change.held_out_before for change in found) == len(held_out)
    assert sum(change.held_out_after for change in found) == len(asked)
    assert [change.moved for change in found] == sorted((change.moved for change in found), reverse=True)


@given(EXAMPLES, st.integers(0, 12), st.randoms(use_true_random=False))
def test_a_choice_is_even_over_categories_and_the_same_in_any_order(items, count, shuffler) -> None:
    chosen = spread(items, count)
    assert len(chosen) == min(count, len(items))
    there, taken = (Counter(item.category for item in some) for some in (items, chosen))
    short = [taken[name] for name in there if taken[name] < there[name]]
    assert not short or max(taken.values(), default=0) - min(short) <= 1
    mixed = list(items)
    shuffler.shuffle(mixed)
    assert [(i.category, content_key(i.messages)) for i in spread(mixed, count)] == [
        (i.category, content_key(i.messages)) for i in chosen
    ]


def test_what_both_are_asked_was_held_out_by_both_and_learned_by_neither() -> None:
    before = [held(n, "ab"[n % 2], "Old.") for n in range(8)]
    after = [held(n, "ab"[n % 2], "New.") for n in range(2, 12)]
    pairs = shared_prompts(before, after, [example(3), example(20)], 4)
    assert len(pairs) == 4
    for ours, theirs in pairs:
        assert ours.origin == theirs.origin
        assert (ours.messages[0].content, theirs.messages[0].content) == ("Old.", "New.")
        assert ours.origin in {f"origin-{n}" for n in (2, 4, 5, 6, 7)}
    assert Counter(theirs.category for _, theirs in pairs) == {"a": 2, "b": 2}
    assert shared_prompts(before[::-1], after[::-1], [example(3)], 4) == pairs
    assert shared_prompts(before[:2], after, [], 5) == []


def test_a_prompt_that_was_learned_with_another_answer_is_not_asked() -> None:
    learned = Conversation(
        category="other", messages=chat(("user", "Question 1?"), ("assistant", "Something else."))
    )
    assert shared_prompts([held(1)], [held(1)], [learned], 5) == []


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"rank": 8, "seed": 0}, {"rank": 16, "seed": 0}, [("rank", "8", "16")]),
        (
            {"sampling": {"temperature": 0.7}},
            {"sampling": {"temperature": 0.3}},
            [("sampling.temperature", "0.7", "0.3")],
        ),
        ({}, {"epochs": 3}, [("epochs", None, "3")]),
        ({"areas": ["a", "b"]}, {"areas": []}, [("areas", "a, b", "none")]),
        (
            {"traits": [{"name": "Kind", "description": "warm"}]},
            {"traits": [{"name": "Calm", "description": "slow"}, {"name": "Kind", "description": "warmer"}]},
            [("traits[Calm]", None, "slow"), ("traits[Kind]", "warm", "warmer")],
        ),
        (
            {"validation": [{"rule": "length", "least": 2, "most": 9}, {"rule": "timeline"}]},
            {"validation": [{"rule": "length", "least": 2, "most": 5}]},
            [
                ("validation[length]", "least 2, most 9", "least 2, most 5"),
                ("validation[timeline]", "yes", None),
            ],
        ),
        (
            {"validation": [{"rule": "word", "name": "a"}]},
            {"validation": [{"rule": "word", "name": "a"}, {"rule": "word", "name": "b"}]},
            [("validation[word 2]", None, "b")],
        ),
        (
            {"traits": [{"name": "A"}, {"name": "B"}]},
            {"traits": [{"name": "B"}, {"name": "A"}]},
            [("order of traits", "A, B", "B, A")],
        ),
    ],
)
def test_fields_are_compared_by_path_and_by_name(before, after, changes) -> None:
    found = [(change.field, change.before, change.after) for change in changed_fields(before, after)]
    assert found == changes
    back = {(change.field, change.after, change.before) for change in changed_fields(after, before)}
    assert back == set(changes)
    assert changed_fields(after, after) == ()


@given(st.text("ab .\n", max_size=30), st.text("ab .\n", max_size=30))
def test_a_text_differs_if_and_only_if_its_diff_has_lines(before, after) -> None:
    assert bool(changed_text(before, after)) == (before != after)


def test_a_prompt_is_compared_sentence_by_sentence_with_context() -> None:
    before = "You are Jamie. You answer tenants. Write five sentences. Never a list."
    after = "You are Jamie. You answer tenants. Write two sentences. Never a list. Sign."
    assert changed_text(before, after) == (
        "@@ -1,4 +1,5 @@",
        " You are Jamie.",
        " You answer tenants.",
        "-Write five sentences.",
        "+Write two sentences.",
        " Never a list.",
        "+Sign.",
    )


@pytest.mark.parametrize(
    ("before", "after", "step"),
    [
        (None, "0.1.0", "first"),
        ("0.1.0", "0.1.1", "patch"),
        ("0.1.9", "0.2.0", "minor"),
        ("0.9.3", "1.0.0", "major"),
        ("0.9.0", "0.10.0", "minor"),
    ],
)
def test_the_weightiest_part_of_the_number_names_the_step(before, after, step) -> None:
    assert number_step(before, after) == step


def test_a_step_is_explained_by_what_changed() -> None:
    assert step_reason("major", base_model=True, design=False, refreshed=False) == "another base model"
    assert "base model and another persona" in step_reason(
        "major", base_model=True, design=True, refreshed=False
    )
    assert step_reason("major", base_model=False, design=False, refreshed=False) == "a redesign in between"
    assert (
        step_reason("patch", base_model=False, design=False, refreshed=False)
        == "new training data or settings"
    )
    assert "same examples" in step_reason("patch", base_model=False, design=False, refreshed=True)


@given(st.text(max_size=80), st.integers(1, 60))
def test_a_clipped_text_is_one_line_of_at_most_that_length(text, characters) -> None:
    clipped = clip(text, characters)
    assert len(clipped) <= characters
    assert clipped == " ".join(clipped.split())


JAMIE = load_persona("jamie")
BASE = "local/smollm2-135m"


def report(candidate: str, baseline: str, **changes: object) -> EvaluationReport:
    figures = {
        "validation_pass_rate": 1.0,
        "similarity": 0.5,
        "length_ratio": 1.0,
        "unfinished": 0.0,
        "seconds": 1.0,
    }
    scores = [1.0] * 15 + [0.0]
    fields = {
        "persona": "jamie",
        "judge": "reference",
        "dataset": "d",
        "prompts": 16,
        "wins": 15,
        "losses": 1,
        "ties": 0,
        "invalid": 0,
        "flips": 0,
        "score": score_interval(scores),
        "scores": scores,
        "similarity_gain": mean_interval([0.1, 0.2]),
        "similarity_floor": 0.3,
        "candidate": Side(model=candidate, perplexity=4.0, **figures),
        "baseline": Side(model=baseline, perplexity=8.0, **figures),
        "violations": {},
    }
    return EvaluationReport(**{**fields, **changes})


def version(number: str, *, against: str = BASE, persona: Persona = JAMIE, **changes: object) -> Tuned:
    address = f"{persona.base_model}@job-{number}"
    versions = {f"{BASE}@job-{n}": f"jamie-{n}" for n in ("0.1.0", "0.2.0")}
    fields = {
        "edition": Edition(
            name=f"jamie-{number}",
            address=address,
            base_model=persona.base_model,
            number=number,
            design=persona.design,
            gate="pass",
        ),
        "cast": persona,
        "scored": Scored(report=report(address, against), against=versions.get(against, against)),
        "train": [example(n, "ab"[n % 2]) for n in range(6)],
        "held_out": [held(n) for n in range(20, 24)],
        "settings": {"backend": "local", "epochs": 2},
    }
    return Tuned(**{**fields, **changes})


def test_versions_that_differ_in_nothing_say_so_in_one_line() -> None:
    found = compare_sides(version("0.1.0"), version("0.1.1"))
    assert found.prompt == found.fields == found.settings == found.scores.notes == ()
    assert not found.examples_changed
    assert not found.scores.direct
    text = diff_text(found)
    assert "**Patch: new training data or settings. Neither of the two is live.**" in text
    assert "- Unchanged: base model, persona, examples, training settings" in text
    assert not {"## Persona", "## Examples", "## Training settings"} & set(text.splitlines())


def test_a_version_that_was_held_against_the_other_has_both_on_the_same_prompts() -> None:
    found = compare_sides(version("0.1.0"), version("0.2.0", against=f"{BASE}@job-0.1.0"))
    assert found.scores.direct
    assert "- Head to head: Better: jamie-0.2.0 wins 94% of the comparisons." in diff_text(found)
    assert [note.split(" (")[0] for note in found.scores.notes] == ["Other baselines"]


def test_each_reason_not_to_compare_scores_is_noted_with_both_values() -> None:
    strict = JAMIE.model_copy(update={"validation": JAMIE.validation[:1]})
    judged = report(f"{BASE}@job-0.2.0", f"{BASE}@job-0.0.9", judge="model:local/x")
    after = version(
        "0.2.0",
        persona=strict,
        scored=Scored(report=judged, against="jamie-0.0.9"),
        held_out=[held(n) for n in range(22, 27)],
    )
    notes = compare_sides(version("0.1.0"), after).scores.notes
    assert len(notes) == 4
    assert "(4, then 5; 2 in both)" in notes[0]
    assert f"({BASE}, then jamie-0.0.9)" in notes[1]
    assert "(reference, then model:local/x)" in notes[2]
    assert "validation pass rates" in notes[3]


def test_the_biggest_news_comes_first() -> None:
    designed = JAMIE.model_copy(
        update={"system_prompt": "You are Jamie. Be brief.", "base_model": "local/other"}
    )
    after = version("1.0.0", persona=designed, settings={"backend": "local", "epochs": 3})
    after = Tuned(**{**vars(after), "train": [example(n, "c") for n in range(4, 9)]})
    found = compare_sides(version("0.1.0"), after)
    asked = Question(category="a", question="Why | how?", reference="So.", before="No.", after="Yes.")
    text = diff_text(found.model_copy(update={"questions": (asked,)}))
    words = (
        "another base model and another persona design",
        "- Gate:",
        "- Base model: local/smollm2-135m → local/other",
        "- Persona: redesigned (system prompt +2 −",
        "- Examples: to learn from 6 → 5 (+3 −4)",
        "- Training settings: epochs 2 → 3",
        "## Scores",
        "## The same questions",
        "- **the person**: So.",
        "- **jamie-0.1.0**: No.",
        "- **jamie-1.0.0**: Yes.",
        "## Persona",
        "+Be brief.",
        "## Examples",
        "| c        | 0 → 5",
        "## Training settings",
        "## Lineage",
    )
    places = [text.find(word) for word in words]
    assert -1 not in places
    assert places == sorted(places)


def test_of_a_first_version_all_is_new() -> None:
    base = Base(edition=Edition(name=BASE, address=BASE, base_model=BASE))
    found = compare_sides(base, version("0.1.0"))
    assert (found.step, found.train.added, found.held_out.added) == ("first", 6, 4)
    assert found.scores.direct
    assert found.scores.before is None
    assert {change.before for change in (*found.fields, *found.settings)} == {None}
    assert "sampling.context_window" not in {change.field for change in found.fields}
    text = diff_text(found)
    assert "**First version: there was none before it." in text
    assert "Each in its own evaluation" not in text


def test_an_answer_of_many_lines_stays_in_its_place_and_one_that_both_gave_is_shown_once() -> None:
    asked = Question(category="a", question="Why?", reference="So.\n\n- a\n- b", before="Yes.", after="Yes.")
    none = Question(category="a", question="How?", reference="So.", before="", after="x " * 900)
    found = compare_sides(version("0.1.0"), version("0.1.1"))
    text = diff_text(found.model_copy(update={"questions": (asked, none)}))
    assert "   - **the person**: So. - a - b\n   - **both**: Yes.\n" in text
    assert "**jamie-0.1.0**: (nothing)" in text
    assert max(map(len, text.splitlines())) < 700
    assert "none to ask" in diff_text(found.model_copy(update={"questions": ()}))


def test_random_order_of_files_changes_nothing() -> None:
    shuffled = [example(n, "ab"[n % 2]) for n in range(6)]
    random.Random(1).shuffle(shuffled)
    assert not compare_sides(version("0.1.0"), version("0.1.1", train=shuffled)).examples_changed
