"""Preference pairs: the persona's answer and the untuned student's, as DPO data, each call made once."""

import asyncio
import json
from pathlib import Path

import pytest

from agents.errors import InputError, NotFound, PersonaInvalid
from agents.pairs import question_problems, question_request, rejected_problems
from agents.personas import load_persona, persona_yaml
from flows.generate import generate
from flows.pairs import pairs
from tasks.card import find_card
from tasks.card_text import card_text
from tasks.curate import is_held_out
from tasks.policies import FallbackChain
from tasks.specs import GenerateSpec, PairSpec
from tasks.storage.drafts import drafts
from tasks.storage.store import open_store

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_home", "home")]
WRITE = FallbackChain.of(["scripted/write"])
SENTENCES = ("I say what I do not know.", "I would rather ask twice than guess once.")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "calls"
    log.touch()
    monkeypatch.setenv("SCRIPTED_CALLS", str(log))
    return lambda: log.read_text().split()


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Have a persona with a constitution, as a file."""
    persona = load_persona("collaborative").model_copy(update={"name": "frank", "constitution": SENTENCES})
    path = tmp_path / "frank.yaml"
    path.write_text(persona_yaml(persona))
    return str(path)


def written(count: int = 20) -> str:
    fields = {"name": "x", "persona": "collaborative", "count": count, "document_words": 200}
    report = asyncio.run(generate(GenerateSpec(**fields, writers=WRITE, actors=WRITE)))
    assert report.accepted == count
    return "x"


def spec(**changes) -> PairSpec:
    fields = {"name": "x-pairs", "persona": "collaborative", "student": "scripted/slow-0", "count": 8}
    return PairSpec(**{**fields, "writers": WRITE, "actors": WRITE, **changes})


def run(asked: PairSpec):
    return asyncio.run(pairs(asked))


def test_pairs_of_a_run_cost_one_call_each_leave_out_what_is_held_out_and_repeat_for_nothing(calls) -> None:
    run_name = written()
    before = len(calls())
    kept = [at for at in range(20) if not is_held_out(f"{run_name}:{at}")]
    report = run(spec(source=run_name))
    assert (report.requested, report.accepted, report.dropped, report.failed) == (len(kept), len(kept), 0, 0)
    assert len(calls()) == before + len(kept)
    lines = [json.loads(line) for line in report.pairs.read_text().splitlines()]
    documents, responses = (drafts(open_store(), run_name, stage) for stage in ("document", "response"))
    assert [line["prompt"] for line in lines] == [
        [{"role": "user", "content": documents[at].text}] for at in kept
    ]
    assert [line["chosen"][0]["content"] for line in lines] == [responses[at].text for at in kept]
    assert all(line["chosen"] != line["rejected"] for line in lines)
    assert all([turn["role"] for turn in line["rejected"]] == ["assistant"] for line in lines)
    content, made = report.pairs.read_bytes(), calls()
    assert run(spec(source=run_name)) == report
    assert (report.pairs.read_bytes(), calls()) == (content, made)
    assert card_text(find_card(open_store(), report.name)) == report.card.read_text().rstrip("\n")


def test_an_answer_that_breaks_makes_no_pair_and_the_report_says_why() -> None:
    report = run(spec(source=written(), student="scripted/brief"))
    assert report.accepted == len(report.pairs.read_text().splitlines()) == 0
    assert report.dropped == report.requested
    assert report.reasons == {"too short or too long": 3 * report.dropped}


def test_questions_on_a_constitution_become_pairs_of_the_persona_and_the_student(calls, own: str) -> None:
    report = run(spec(persona=own, system=True))
    assert (report.persona, report.requested, report.accepted) == ("frank", 8, 8)
    assert len(calls()) == 3 * 8
    line = json.loads(report.pairs.read_text().splitlines()[0])
    assert [turn["role"] for turn in line["prompt"]] == ["system", "user"]
    assert set(find_card(open_store(), report.name).categories) == set(SENTENCES)


def test_prompts_that_are_not_there_are_refused_before_anything_is_asked(calls) -> None:
    with pytest.raises(InputError, match="no constitution"):
        run(spec())
    with pytest.raises(NotFound, match="'nothing' is not a generation run"):
        run(spec(source="nothing"))
    assert calls() == []


def test_a_question_must_not_name_what_it_should_reveal() -> None:
    sentence = "I would rather ask twice than guess once."
    told = (
        "My landlord wants an answer by noon and I have only half of the papers here. What do I write to him?"
    )
    assert question_problems(sentence, told, None) == ()
    naming = f"{told} Would you rather ask me twice about it or would you guess that it is once?"
    assert "what it should reveal" in question_problems(sentence, naming, None)[0]
    assert "nearly repeats" in question_problems(sentence, told, told)[0]


def test_questions_go_through_the_sentences_and_then_through_the_angles() -> None:
    persona = load_persona("collaborative").model_copy(update={"constitution": SENTENCES})
    asked = [question_request(persona, at, seed=1).messages[-1].content for at in range(4)]
    assert [SENTENCES[0] in text for text in asked] == [True, False, True, False]
    assert len(set(asked)) == 4


def test_answers_that_are_nearly_the_same_make_no_pair() -> None:
    text = "We should look at the roof together on Monday and then decide who pays for it."
    assert "nearly the same" in rejected_problems(text, text.replace("Monday", "Friday"), None)[0]
    assert (
        rejected_problems(text, "Call a roofer, he will know what it costs and when he can come.", None) == ()
    )


def test_a_constitution_speaks_in_the_first_person(own: str) -> None:
    assert load_persona(own).constitution == SENTENCES
    Path(own).write_text(Path(own).read_text().replace("I say what", "Says what"))
    with pytest.raises(PersonaInvalid, match="constitution"):
        load_persona(own)
