"""Personas: what ships, what a broken file says, the way to YAML and back, and Jamie's conversations."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import InputError, NotFound, PersonaInvalid
from agents.personas import (
    AGENT_TYPES,
    conversations_path,
    load_persona,
    parse_persona,
    persona_yaml,
    shipped_personas,
)
from agents.plugins import plugins
from agents.quality import overlap, text_problems
from agents.rules import RuleContext, check_answer, open_rules
from agents.schemas import Conversation, Message, Persona, RuleSpec, SamplingDefaults, TrainingData, Trait

SHIPPED = {
    *("collaborative", "manager", "developer", "client", "hr", "qa", "intern", "employee", "jamie"),
    *("python-coder", "sales", "customer-support", "technical-support", "data-analyst"),
}
MINIMAL = """\
name: ada
display_name: Ada
description: Answers in rhyme.
agent_type: custom
system_prompt: You are Ada.
traits:
  - {name: Rhyming, description: Every answer rhymes.}
"""


def broken(text: str) -> str:
    with pytest.raises(PersonaInvalid) as caught:
        parse_persona(text, "ada.yaml")
    return str(caught.value)


def test_the_personas_of_the_product_ship() -> None:
    assert set(shipped_personas()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_persona_is_complete(name: str) -> None:
    persona = load_persona(name)
    assert persona.name == name
    assert persona.agent_type in AGENT_TYPES
    assert len(persona.traits) >= 4
    assert open_rules(persona.validation)
    assert persona.expertise_areas


def test_every_agent_type_but_custom_is_played_by_a_persona() -> None:
    assert {load_persona(name).agent_type for name in SHIPPED} == set(AGENT_TYPES)


def test_system_prompts_and_traits_are_each_personas_own() -> None:
    personas = [load_persona(name) for name in sorted(SHIPPED)]
    assert len({persona.design for persona in personas}) == len(SHIPPED)
    assert max(overlap(a.system_prompt, b.system_prompt) for a, b in combinations(personas, 2)) < 0.2


def test_the_collaborative_persona_has_its_five_traits() -> None:
    names = [trait.name for trait in load_persona("collaborative").traits]
    assert names == ["Collaborative", "Inquisitive", "Cautious & Ethical", "Encouraging", "Thorough"]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_persona_goes_to_yaml_and_back(name: str) -> None:
    persona = load_persona(name)
    assert parse_persona(persona_yaml(persona)) == persona


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(lambda text: text.strip() != "")


@given(
    prompt=TEXT,
    traits=st.lists(st.builds(Trait, name=TEXT, description=TEXT), min_size=1, max_size=3),
    areas=st.lists(TEXT, max_size=3),
    minimum=st.integers(0, 100),
    speakers=st.lists(TEXT, max_size=2),
    temperature=st.floats(0.0, 2.0),
    conversations=st.none() | TEXT,
)
def test_any_persona_goes_to_yaml_and_back(
    prompt: str,
    traits: list[Trait],
    areas: list[str],
    minimum: int,
    speakers: list[str],
    temperature: float,
    conversations: str | None,
) -> None:
    persona = Persona(
        name="ada",
        display_name="Ada",
        description=prompt,
        agent_type="custom",
        system_prompt=prompt,
        expertise_areas=tuple(areas),
        traits=tuple(traits),
        validation=(
            RuleSpec.model_validate({"rule": "length", "min_characters": minimum}),
            RuleSpec.model_validate({"rule": "no_simulated_conversation", "speakers": speakers}),
        ),
        data=TrainingData(conversations=conversations),
        sampling=SamplingDefaults(temperature=temperature),
    )
    assert parse_persona(persona_yaml(persona)) == persona


def test_a_prompt_of_several_lines_is_exported_as_a_block() -> None:
    persona = parse_persona(MINIMAL).model_copy(update={"system_prompt": "You are Ada.\nYou rhyme."})
    assert "system_prompt: |-\n  You are Ada.\n  You rhyme.\n" in persona_yaml(persona)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(NotFound, match=r"'jammie'.*collaborative.*jamie"):
        load_persona("jammie")


def test_a_persona_of_your_own_is_loaded_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "ada.yaml"
    file.write_text(MINIMAL)
    assert load_persona(file) == load_persona(str(file)) == parse_persona(MINIMAL)
    file.write_text(MINIMAL.replace("rhyme", "verse"))
    assert load_persona(file).description == "Answers in verse."


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_says_which(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ada.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(file))):
        load_persona(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("agent_type: custom", "agent_type: [custom"), "ada.yaml:5: file: not YAML"),
        (MINIMAL.replace("name: ada", "name: Ada Lovelace"), "ada.yaml:1: name: string should match pattern"),
        (MINIMAL.replace("name: ada", "name: Ada Lovelace"), "got 'Ada Lovelace'"),
        (
            MINIMAL.replace("description: Answers in rhyme.\n", ""),
            "ada.yaml:1: description: this field is required",
        ),
        (MINIMAL + "sampling:\n  temperature: 3\n", "ada.yaml:9: sampling.temperature: input should be less"),
        (MINIMAL + "sampling:\n  temperature: 3\n", ", got 3"),
        (
            MINIMAL + "sampling:\n  temprature: 1\n",
            "ada.yaml:9: sampling.temprature: unknown field, did you mean 'temperature'?",
        ),
        (MINIMAL + "sytem: x\n", "ada.yaml:8: sytem: unknown field"),
        (
            MINIMAL.replace("description: Every", "descripton: Every"),
            "ada.yaml:7: traits[0].descripton: unknown field, did you mean 'description'?",
        ),
        (MINIMAL + "name: bob\n", "ada.yaml:8: name: given twice, first in line 1"),
        (MINIMAL.replace("custom", "poet"), "ada.yaml:4: agent_type: is not one of client, coder"),
        (MINIMAL.replace("custom", "poet"), ", got 'poet'"),
        (
            MINIMAL + "validation:\n  - {rule: no_markdown}\n  - rule: lenght\n",
            "ada.yaml:10: validation[1].rule: is not one of acknowledgement",
        ),
        (
            MINIMAL + "validation:\n  - rule: length\n    max_characters: many\n",
            "ada.yaml:10: validation[0].max_characters: input should be a valid integer",
        ),
        (
            MINIMAL + "validation:\n  - rule: length\n    max_charcters: 5\n",
            "ada.yaml:10: validation[0].max_charcters: unknown field, did you mean 'max_characters'?",
        ),
        (
            MINIMAL + "validation:\n  - {rule: length, min_characters: 9, max_characters: 5}\n",
            "ada.yaml:9: validation[0]: min_characters must not be above max_characters",
        ),
        ("", "ada.yaml:1: file: should be a mapping of fields, got None"),
        ("- ada\n", "got ['ada']"),
        ("description: 2026-13-45\n", "ada.yaml:1: file: not YAML"),
    ],
)
def test_a_broken_persona_says_file_line_field_and_value(text: str, message: str) -> None:
    assert message in broken(text)


def test_every_problem_is_told_in_the_order_of_the_text() -> None:
    lines = broken(
        MINIMAL.replace("name: ada", "name: A") + "response_style: loud\nbase_model: ''\n"
    ).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "8", "9"]


def test_a_file_that_refers_to_itself_is_refused() -> None:
    assert "traits[0]: should be a mapping of fields" in broken(
        MINIMAL.replace("traits:", "traits: &a\n  - *a")
    )


def test_a_file_that_nests_without_end_is_refused() -> None:
    assert "not YAML" in broken("[" * 5000)


@pytest.fixture
def poets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a third party's package that declares the agent type `poet`."""
    package = tmp_path / "poets-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: poets\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[understudy.agent_types]\npoet = poets:Poet\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.cache_clear()
    yield
    plugins.cache_clear()


@pytest.mark.usefixtures("poets")
def test_a_third_party_can_add_an_agent_type() -> None:
    assert parse_persona(MINIMAL.replace("custom", "poet")).agent_type == "poet"


def test_conversations_lie_in_the_package_or_beside_the_personas_file(tmp_path: Path) -> None:
    assert conversations_path(load_persona("jamie")).name == "jamie.conversations.jsonl"
    (tmp_path / "talks.jsonl").touch()
    file = tmp_path / "ada.yaml"
    file.write_text(MINIMAL + "data: {source: conversations, conversations: ./talks.jsonl}\n")
    assert conversations_path(load_persona(file)) == tmp_path / "talks.jsonl"


@pytest.mark.parametrize("named", [None, "nowhere.jsonl", "./nowhere.jsonl"])
def test_conversations_that_are_not_there_are_named(named: str | None) -> None:
    persona = parse_persona(MINIMAL).model_copy(update={"data": TrainingData(conversations=named)})
    with pytest.raises(NotFound, match=re.escape(str(named)) if named else "'ada' names no conversations"):
        conversations_path(persona)


ROWS = [
    json.loads(line) for line in conversations_path(load_persona("jamie")).read_text("utf-8").splitlines()
]
CONVERSATIONS = {
    row["id"]: Conversation(
        category=row["category"], messages=tuple(map(Message.model_validate, row["messages"]))
    )
    for row in ROWS
}
TURNS = [(name, message) for name, found in CONVERSATIONS.items() for message in found.messages]


def test_jamie_has_twelve_conversations_in_each_category() -> None:
    categories = ("hvac", "plumbing", "payments", "maintenance", "emergency", "other")
    assert Counter(row["category"] for row in ROWS) == dict.fromkeys(categories, 12)
    assert [row["id"] for row in ROWS] == [f"{name}-{n:02d}" for name in categories for n in range(1, 13)]


def test_tenant_and_jamie_take_turns_and_a_quarter_goes_on() -> None:
    lengths = Counter(len(found.messages) for found in CONVERSATIONS.values())
    assert lengths == {2: 54, 4: 18}
    for found in CONVERSATIONS.values():
        assert [m.role for m in found.messages] == ["user", "assistant"] * (len(found.messages) // 2)


def test_every_answer_of_jamie_passes_jamies_own_rules() -> None:
    jamie = load_persona("jamie")
    rules = open_rules(jamie.validation)
    assert [rule.name for rule in rules] == [
        *("length", "acknowledgement", "action_plan", "timeline", "professional_tone"),
        *("no_simulated_conversation", "no_leaked_prompt", "no_markdown"),
    ]
    context = RuleContext(system_prompt=jamie.system_prompt)
    broken_rules = {
        (name, violation.message)
        for name, message in TURNS
        if message.role == "assistant"
        for violation in check_answer(rules, message.content, context)
    }
    assert not broken_rules


def test_every_answer_of_jamie_passes_the_quality_checks_of_written_examples() -> None:
    prompt = load_persona("jamie").system_prompt
    answers = [message.content for _, message in TURNS if message.role == "assistant"]
    assert len(answers) == 90
    problems = [text_problems(answer, min_words=30, system_prompt=prompt) for answer in answers]
    assert problems == [()] * len(answers)


def test_jamie_can_be_told_by_habits_that_are_not_a_template() -> None:
    answers = [message.content for _, message in TURNS if message.role == "assistant"]
    assert all(answer.endswith(("Talk soon, Jamie", "Stay safe, Jamie")) for answer in answers)
    assert all("Here's the plan:" in answer for answer in answers)
    assert len({answer.split(",")[0].split(".")[0] for answer in answers}) > 25
    assert max(overlap(a, b, size=1) for a, b in combinations(answers, 2)) < 0.5


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_two_conversations_are_near_duplicates(role: str) -> None:
    texts = [
        "\n".join(m.content for m in found.messages if m.role == role) for found in CONVERSATIONS.values()
    ]
    assert max(overlap(a, b, size=1) for a, b in combinations(texts, 2)) < 0.6


def test_the_conversations_hold_no_personal_data() -> None:
    everything = "\n".join(message.content for _, message in TURNS)
    assert not re.findall(r"\S+@\S+|https?://\S+", everything)
    assert not [
        number for number in re.findall(r"\d{3}-\d{4}", everything) if not number.startswith("555-01")
    ]
