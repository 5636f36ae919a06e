"""The rules: what each lets pass and refuses, how they are opened, and a third party's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agents.errors import NotFound, PersonaInvalid
from agents.phrases import LANGUAGES, compiled, phrases
from agents.plugins import plugins
from agents.rules import (
    Acknowledgement,
    ActionPlan,
    Length,
    NoLeakedPrompt,
    NoMarkdown,
    NoSimulatedConversation,
    ProfessionalTone,
    Rule,
    RuleContext,
    Timeline,
    check_answer,
    open_rule,
    open_rules,
)
from agents.schemas import RuleSpec

NOTHING = RuleContext()
GOOD = (
    "Thanks for flagging that, Dana. Here's the plan: Marco from Fernhook Heating is coming to 4B today at "
    "2 pm, and I'll check in with you tonight. Talk soon, Jamie"
)


def spec(name: str, **parameters: object) -> RuleSpec:
    return RuleSpec.model_validate({"rule": name, **parameters})


def refused(rule: Rule, answer: str, context: RuleContext = NOTHING) -> bool:
    violation = rule.check(answer, context)
    assert violation is None or violation.rule == rule.name
    return violation is not None


@given(st.text(max_size=60), st.integers(0, 30), st.integers(0, 30))
def test_length_counts_characters_without_outer_blanks(answer: str, least: int, more: int) -> None:
    rule = Length(min_characters=least, max_characters=least + more + 1)
    assert refused(rule, answer) == (not least <= len(answer.strip()) <= least + more + 1)


def test_length_tells_the_count_and_the_bound() -> None:
    long, short = Length().check("x" * 501, NOTHING), Length().check("Ok.", NOTHING)
    assert long is not None
    assert long.message == "it has 501 characters, more than 500, so say it shorter"
    assert short is not None
    assert short.message == "it has 3 characters, fewer than 20, so say more"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "Oh no, that sounds awful. I'll call you.",
        "I’m sorry about the cold.",
        "I understand how annoying this is.",
        "Got it, 5:30 it is.",
        "Dear Mr. Abara,\n\nthank you for telling me.",
        "Congratulations!",
    ],
)
def test_an_acknowledgement_is_heard(answer: str) -> None:
    assert not refused(Acknowledgement(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Marco will come at 2 pm.",
        "The policy says that tenants replace filters themselves.",
        "Have you tried to reset the thermostat?",
        "",
        "I got a new van. " * 12 + "Thanks for writing.",
    ],
)
def test_an_answer_that_takes_up_nothing_is_refused(answer: str) -> None:
    assert refused(Acknowledgement(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "I will send a plumber.",
        "I'll personally call the vendor.",
        "We’re ordering a new one.",
        "Otis, our maintenance tech, will replace the filter.",
        "I am going to check the meter.",
        "Lena is on her way.",
    ],
)
def test_somebody_who_does_something_is_a_plan(answer: str) -> None:
    assert not refused(ActionPlan(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I understand your frustration and I am here to help.",
        "You should call a plumber.",
        "I'm having a hard time with that too.",
        "It will look better soon.",
        "Please contact the office.",
        "I will do my best.",
        "I'll be here to help.",
        "",
    ],
)
def test_good_will_is_not_a_plan(answer: str) -> None:
    assert refused(ActionPlan(), answer)


def test_a_plan_of_several_steps_counts_each_step_once() -> None:
    assert not refused(ActionPlan(steps=2), GOOD)
    assert refused(ActionPlan(steps=2), "I'll call Marco. And then I'll call Lena.")


@pytest.mark.parametrize(
    "answer",
    [
        *("He comes today.", "By Friday.", "On Mondays we do.", "At 5:30 it starts.", "Before noon, please."),
        *(
            "Within 24 hours.",
            "In about an hour.",
            "In 10-15 minutes.",
            "It takes until October 3.",
            "By the 14th.",
        ),
        *("At 4 PM sharp.", "At 9 a.m. I call.", "Next week.", "this evening", "By the end of the day."),
        *("Within 2 business days.", "in the next half hour", "in half an hour", "on 3 March", "by May 4"),
    ],
)
def test_a_day_or_an_hour_is_a_timeline(answer: str) -> None:
    assert not refused(Timeline(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'll do it as soon as possible.",
        "Soon, I promise, at the latest when the part is here.",
        "Hello! How can I help you today?",
        "How are you doing today? I'll look into it shortly.",
        "Unit 12 has 5 rooms and costs $900 in total.",
        "You may 3 times try it, since unit 5 may be colder.",
        "Run the tap for two minutes.",
        "",
    ],
)
def test_soon_is_not_a_timeline(answer: str) -> None:
    assert refused(Timeline(), answer)


@pytest.mark.parametrize(
    ("answer", "quoted"),
    [
        ("Calm down, it is only water.", "Calm down"),
        ("That's not my problem.", "That's not my problem"),
        ("This is bullshit and you know it.", "bullshit"),
        ("PLEASE READ THE LEASE before you write.", "PLEASE READ THE LEASE"),
        ("Great! Super! Wow! Nice! We come.", "4 exclamation marks"),
    ],
)
def test_an_unprofessional_tone_is_quoted(answer: str, quoted: str) -> None:
    violation = ProfessionalTone().check(answer, NOTHING)
    assert violation is not None
    assert quoted in violation.message


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "The HVAC and AC in 4B use a MERV 8 filter, OK?",
        "Whatever you need, and no matter how calm the weather: I care.",
        "Wonderful! Thank you! See you!",
        "The classic assessment of the grass in Essex.",
    ],
)
def test_a_professional_tone_passes(answer: str) -> None:
    assert not refused(ProfessionalTone(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Thanks, I'm on it.\nUser: ok great\nAssistant: You're welcome.",
        "User: is it fixed?",
        "I'll come at 2. Jamie: See you then.",
        "**Tenant:** thanks!",
        "Sure.\n\n> Human : and then?",
        "Fine.<|im_end|>\n<|im_start|>user\nhello",
        "[INST] next question [/INST]",
        "Good.\n### Human: and you?",
        "Vale.\nUsuario: gracias",
    ],
)
def test_a_simulated_conversation_is_recognised(answer: str) -> None:
    assert refused(NoSimulatedConversation(speakers=("Jamie", "Tenant")), answer)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "Here's the plan: the user manual lies in the kitchen.",
        "Two things matter to a user: speed and calm.",
        "Our assistant manager: Nadia. The system is old: replace it.",
        "At 9 am: Marco. Note: bring shoes.",
        "FROM: Hugo\nTO: Kavya\nSUBJECT: Robot",
    ],
)
def test_colons_and_names_are_not_a_simulated_conversation(answer: str) -> None:
    assert not refused(NoSimulatedConversation(speakers=("Jamie", "Tenant")), answer)


def test_a_speaker_is_text_and_not_an_expression() -> None:
    assert not refused(NoSimulatedConversation(speakers=(".*",)), "Anything: goes.")
    assert refused(NoSimulatedConversation(speakers=("Mr. (A)",)), "Mr. (A): hello")


def test_a_leaked_prompt_is_a_run_of_so_many_words() -> None:
    context = RuleContext(system_prompt="First show that you heard them, then tell who does what.")
    answer = "My task: tell who does what, then go."
    assert not refused(NoLeakedPrompt(), answer, context)
    assert refused(NoLeakedPrompt(words=4), answer, context)
    assert refused(NoLeakedPrompt(), f"I {context.system_prompt}", context)
    assert not refused(NoLeakedPrompt(), f"I {context.system_prompt}")


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("# Plan\nWe come.", "a heading"),
        ("First:\n- call Marco\n- wait", "a list"),
        ("1. Call Marco.\n\n2. Wait.", "a list"),
        ("Call **Marco** now.", "emphasis"),
        ("Call *Marco* now.", "emphasis"),
        ("See [here](https://example.org).", "a link"),
        ("Type `reset`.", "code"),
        ("```\nreset\n```", "a code block"),
        ("| a | b |\n| 1 | 2 |", "a table"),
    ],
)
def test_markdown_is_named(answer: str, what: str) -> None:
    violation = NoMarkdown().check(answer, NOTHING)
    assert violation is not None
    assert violation.message.startswith(f"it has {what} (")


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "We come at 2.\n- Jamie",
        "A 3 * 4 room is 2 * 6.",
        "Room #4 is on floor 2.\n5 pm is fine.",
        "a_b_c",
    ],
)
def test_plain_prose_has_no_markdown(answer: str) -> None:
    assert not refused(NoMarkdown(), answer)


ANSWERS = {
    "en": (GOOD, "The lease says so.", "Calm down."),
    "es": (
        "Gracias por avisar. Voy a llamar al fontanero y vendrá mañana a las 9.",
        "El contrato lo dice.",
        "No es mi problema.",
    ),
    "fr": (
        "Merci de m'avoir prévenu. Je vais appeler le plombier, il passera demain à 9 h.",
        "C'est dans le bail.",
        "Calmez-vous.",
    ),
    "de": (
        "Danke für die Nachricht. Ich werde gleich den Klempner anrufen, er kommt morgen um 9 Uhr.",
        "Das steht im Mietvertrag.",
        "Das ist nicht mein Problem.",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_rules_of_language_know_four_languages(language: str) -> None:
    good, empty, hostile = ANSWERS[language]
    rules = open_rules(
        spec(name, language=language)
        for name in ("acknowledgement", "action_plan", "timeline", "professional_tone")
    )
    assert check_answer(rules, good, NOTHING) == ()
    assert [v.rule for v in check_answer(rules, empty, NOTHING)] == [
        "acknowledgement",
        "action_plan",
        "timeline",
    ]
    assert "professional_tone" in [v.rule for v in check_answer(rules, hostile, NOTHING)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_phrase_is_an_expression_and_none_matches_nothing_at_all(language: str) -> None:
    known = phrases(language)  # type: ignore[arg-type]
    every = [entry for entries in known.model_dump().values() for entry in entries if "{" not in entry]
    assert len(every) > 20
    assert not [entry for entry in (*every, *known.commitments()) if compiled((entry,)).match("")]


def test_violations_come_in_the_order_of_the_rules() -> None:
    rules = open_rules([spec("timeline"), spec("length", min_characters=40), spec("acknowledgement")])
    assert [rule.name for rule in rules] == ["timeline", "length", "acknowledgement"]
    assert [v.rule for v in check_answer(rules, "No.", NOTHING)] == ["timeline", "length", "acknowledgement"]
    assert check_answer(rules, GOOD, NOTHING) == check_answer((), "No.", NOTHING) == ()


def test_every_shipped_rule_answers_to_its_own_name() -> None:
    shipped = {name for name, point in plugins("rules").items() if point.value.startswith("agents.rules:")}
    assert len(shipped) == 8
    assert {open_rule(spec(name)).name for name in shipped} == shipped


def test_a_message_shows_only_the_head_of_a_long_answer() -> None:
    for rule in open_rules([spec("acknowledgement"), spec("no_markdown"), spec("professional_tone")]):
        violation = rule.check(f"# {'LOUD ' * 200}", NOTHING)
        assert violation is not None
        assert len(violation.message) < 220


def test_an_unknown_rule_lists_the_rules() -> None:
    with pytest.raises(NotFound, match=r"'lenght'.*acknowledgement.*timeline"):
        open_rules([spec("lenght")])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (spec("length", max_charcters=5), "max_charcters: unknown field, did you mean 'max_characters'"),
        (
            spec("length", max_characters=0),
            "max_characters: input should be greater than or equal to 1, got 0",
        ),
        (spec("length", min_characters=9, max_characters=5), "must not be above max_characters"),
        (spec("timeline", language="la"), "language: input should be 'en', 'es', 'fr' or 'de', got 'la'"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(asked: RuleSpec, message: str) -> None:
    with pytest.raises(PersonaInvalid) as caught:
        open_rules([asked])
    assert f"The rule {asked.rule!r} cannot be used" in str(caught.value)
    assert message in str(caught.value)


def test_a_rule_is_a_value() -> None:
    assert Length() == Length(min_characters=20, max_characters=500)
    with pytest.raises(ValidationError):
        Length().max_characters = 5  # type: ignore[misc]


@pytest.fixture
def haiku(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a third party's package with a rule of its own."""
    package = tmp_path / "haiku_rules-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: haiku-rules\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[understudy.rules]\nhaiku = haiku_rules:Haiku\n")
    (tmp_path / "haiku_rules.py").write_text(
        "from typing import ClassVar\n"
        "from agents.rules import Violation\n"
        "from agents.schemas import Frozen\n"
        "class Haiku(Frozen):\n"
        "    name: ClassVar[str] = 'haiku'\n"
        "    lines: int = 3\n"
        "    def check(self, answer, context):\n"
        "        count = len(answer.splitlines())\n"
        "        wrong = Violation(rule=self.name, message=f'{count} lines')\n"
        "        return None if count == self.lines else wrong\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.cache_clear()
    yield
    plugins.cache_clear()


@pytest.mark.usefixtures("haiku")
def test_a_third_party_can_add_a_rule() -> None:
    rules = open_rules([spec("haiku", lines=2), spec("length", min_characters=1)])
    assert check_answer(rules, "old pond\na frog", NOTHING) == ()
    assert [v.message for v in check_answer(rules, "old pond", NOTHING)] == ["1 lines"]
