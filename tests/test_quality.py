"""The quality checks of written texts: what each refuses, and what it must let pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.quality import (
    distinct_share,
    leaked_prompt,
    looping,
    near_duplicate,
    overlap,
    placeholder,
    refusal,
    settle_cut,
    text_problems,
    whole_sentences,
    words,
)

MEMO = """\
TO: Kavya Nair, Head of Operations
FROM: Hugo Marchetti, Factory Automation
DATE: 14 March
SUBJECT: Robot arm on line 3 [CONFIDENTIAL]

Kavya, the new arm on line 3 has stopped twice a day since 2 March. Each stop costs us 40 minutes and
about 1,100 boxes. The vendor's engineer, Elif Kaya, says that our power supply dips below 380 volts; our
electrician, Ben Whitlock, measured for two days and saw no dip [1]. Elif wants us to buy a 9,000 euro
filter before she looks any further. Ben would rather send the arm back while the warranty lasts, which is
until 30 March. I can't promise that the line survives another week like this one, and I am sorry to bring
you a choice instead of an answer.

The night shift has started to skip the safety check after a restart [see the log of 11 March], because it
takes six minutes and they are behind. I stopped that yesterday. Nobody was hurt.

Should we buy the filter, return the arm, or pay an independent expert 1,500 euro to tell us who is right?
"""
PROMPT = (
    "You are Jamie, the property manager of an apartment community, and you answer tenants by text message."
)


def test_a_good_text_has_no_problems() -> None:
    assert text_problems(MEMO, min_words=100, system_prompt=PROMPT) == ()


def test_every_problem_of_a_bad_text_is_told_with_how_to_mend_it() -> None:
    text = "As an AI language model, I wrote this for [Your Name]. " + "The plan is very good. " * 3
    told = text_problems(text, min_words=100)
    assert [problem.split()[1] for problem in told] == ["has", "declines", "leaves", "says"]
    assert "it has 26 words, fewer than 100, so write more" in told
    assert all(", so " in problem for problem in told)


@given(st.text(max_size=400), st.integers(0, 100))
def test_the_count_of_words_decides_alone_on_length(text: str, least: int) -> None:
    told = any(problem.startswith("it has ") for problem in text_problems(text, min_words=least))
    assert told == (len(text.split()) < least)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t help with that request.",
        "I am sorry, but I cannot fulfill this request as it goes against policy.",
        "Unfortunately, I cannot comply with your request.",
        "I'm unable to help with that.",
        "I'm sorry, but I'm unable to provide you with the information you requested.",
        "I must respectfully decline to answer.",
        "Here is my view. As an AI language model, I don't have feelings about memos.",
        "As an AI, I have no opinion.",
        "Well, I'm just a language model, so take it with care.",
        "I'm an AI assistant and cannot visit you.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Désolé, je ne peux pas vous aider.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
    ],
)
def test_a_refusal_is_recognised(text: str) -> None:
    assert "declines or speaks as a machine" in (refusal(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        MEMO,
        "I'm sorry, but I can't make the meeting on Tuesday; could we move it to Wednesday at 9?",
        "I cannot promise a date before the part is here, but I will call you tonight.",
        "I can't hold cash in the office, but the stores take it.",
        "I'm an AI engineer at a hospital and I need advice.",
        "The vendor sells it as an AI assistant for nurses.",
        "We will not support this version after May, so plan the move now.",
    ],
)
def test_an_honest_no_is_not_a_refusal(text: str) -> None:
    assert refusal(text) is None


@pytest.mark.parametrize(
    "blank",
    [
        *("[Your Name]", "[your company]", "[Date]", "[DATE]", "[Name of the Client]", "[insert figure]"),
        *(
            "[Recipient's Name]",
            "[Company Name, City]",
            "[amount]",
            "[Su nombre]",
            "[Votre nom]",
            "[Ihr Name]",
        ),
        *("{name}", "{{ client_name }}", "{First Name}", "<insert date>", "<Your Name>"),
        *("XX/XX/XXXX", "$X,XXX", "$XX", "Lorem ipsum", "lorem ipsum"),
    ],
)
def test_a_template_placeholder_is_recognised_and_quoted(blank: str) -> None:
    told = placeholder(f"Dear team, please write to {blank} before Friday.")
    assert told is not None
    assert blank in told


@pytest.mark.parametrize(
    "text",
    [
        MEMO,
        "See [the report](https://example.org) and [Annual Report](report.pdf).",
        "- [x] done\n- [ ] open",
        "He said he would [sic] come [laughs quietly] as planned, ticket [OPS-204].",
        'Use `f"{name}"` for that.',
        "```python\nprint(f'{name}')\nrow[Name]\n```",
        "Call /users/{id} and set ${HOME}.",
        'Send {"name": "Ada"} and a set {1, 2}.',
        "If a < b and name > c, the XXL shirt costs $12.",
    ],
)
def test_brackets_with_a_meaning_are_not_placeholders(text: str) -> None:
    assert placeholder(text) is None


def test_a_long_run_of_the_system_prompt_is_a_leak_and_is_quoted() -> None:
    told = leaked_prompt("Sure. I am the property manager of an apartment community and I answer.", PROMPT)
    assert told is not None
    assert "the property manager of an apartment community and" in told


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_leak_begins_at_eight_words_in_a_row(start: int, length: int) -> None:
    run = words(PROMPT)[start : start + length]
    assert (leaked_prompt(f"Well: {' '.join(run)}!", PROMPT) is not None) == (len(run) >= 8)


def test_talk_about_the_instructions_is_a_leak_without_any_shared_words() -> None:
    assert leaked_prompt("My system prompt forbids it.", "")
    assert leaked_prompt("I was instructed to be brief.", "")
    assert leaked_prompt("The instructions are on the box.", "") is None


def test_a_very_short_system_prompt_cannot_leak() -> None:
    assert leaked_prompt("You are Ada, they said.", "You are Ada.") is None
    assert leaked_prompt("You are Ada the poet, they said.", "You are Ada the poet.")


@pytest.mark.parametrize(
    "text",
    [
        "We need to talk about it. Then we act. We need to talk about it! Now? We need to talk about it.",
        "The team is ready now.\nThe team is ready now.\nThe team is ready now.",
        MEMO + " the team and the plan and" * 30,
        "no " * 100,
    ],
)
def test_a_loop_is_recognised(text: str) -> None:
    assert looping(text) is not None


@pytest.mark.parametrize("text", [MEMO, "", "Yes. Yes. Yes. Yes.", "We agree on this. " * 2, MEMO * 2])
def test_a_text_that_says_things_once_or_twice_is_no_loop(text: str) -> None:
    assert looping(text) is None


@given(st.integers(60, 200), st.integers(1, 70))
def test_the_share_of_distinct_runs_falls_with_the_length_of_the_circle(length: int, circle: int) -> None:
    said = " ".join(f"w{index % circle}" for index in range(length + 2))
    assert distinct_share(said) == min(circle, 60) / 60


@given(st.text(max_size=80), st.text(max_size=80))
def test_overlap_is_a_symmetric_share_and_full_for_the_same_text(one: str, other: str) -> None:
    assert 0.0 <= overlap(one, other) == overlap(other, one) <= 1.0
    assert overlap(one, one) == 1.0


def test_overlap_counts_shared_pairs_of_words() -> None:
    assert overlap("The heat is off.", "the HEAT is on") == 2 / 4
    assert overlap("heat", "Heat!") == 1.0
    assert overlap("heat", "") == 0.0


@given(st.lists(st.text("abc ", min_size=1, max_size=12), max_size=6), st.text("abc ", max_size=12))
def test_a_near_duplicate_is_the_most_similar_text_at_or_above_the_threshold(
    others: list[str], text: str
) -> None:
    found = near_duplicate(text, others, threshold=0.5)
    shares = [overlap(text, other) for other in others]
    if found is None:
        assert all(share < 0.5 for share in shares)
    else:
        assert shares[found] == max(shares) >= 0.5


def test_near_duplicates_of_real_texts() -> None:
    earlier = ["The sink in 9 is clogged since Monday.", MEMO, "Can I paint the bedroom green?"]
    assert near_duplicate(MEMO.replace("Kavya", "Ines").replace("40", "45"), earlier) == 1
    assert near_duplicate("The dryer in 9 needs three cycles since Monday.", earlier) is None
    assert near_duplicate(MEMO, []) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("We agree. The next step is to", "We agree."),
        ('She said "Stop." And then she', 'She said "Stop."'),
        ("Is it 3.5 or 4? Ask Mr. Ab", "Is it 3.5 or 4?"),
        ("First this.\n\n2. Then", "First this."),
        ("It costs **9 euro.** And", "It costs **9 euro.**"),
        ("  all in one go without an end ", "all in one go without an end"),
        ("It was sold in 1998. The", "It was sold in 1998."),
        ("", ""),
    ],
)
def test_a_cut_text_ends_with_its_last_whole_sentence(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


@given(st.text(max_size=200))
def test_whole_sentences_only_cuts_the_end_and_cuts_once(text: str) -> None:
    kept = whole_sentences(text)
    assert text.strip().startswith(kept)
    assert whole_sentences(kept) == kept


@pytest.mark.parametrize(
    ("text", "kept", "refused"),
    [
        ("We agreed on it. Then Mr. Smith said that", "We agreed on it. Then Mr. Smith said that", True),
        (
            "One thing is settled by now, and it is large. And",
            "One thing is settled by now, and it is large.",
            False,
        ),
        (
            "no sentence is ever finished, and so it goes on and",
            "no sentence is ever finished, and so it goes on and",
            True,
        ),
        ("All of it is whole.", "All of it is whole.", False),
    ],
)
def test_a_cut_text_is_kept_when_most_of_it_is_whole(text: str, kept: str, refused: bool) -> None:
    found, reason = settle_cut(text)
    assert (reason is not None) == refused
    assert refused or found == kept
