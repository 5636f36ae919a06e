"""The stage: promotion, approval and rollback, and a running service that follows them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from scripted_service import PATIENCE, served_at

from agents.errors import Conflict, NotFound
from agents.personas import load_persona
from deployments.catalog import StoreCatalog
from tasks.promote import PromotionReport, answer_promotion, promote_version, roll_back
from tasks.specs import PromoteSpec
from tasks.storage import registry, stage
from tasks.storage.designs import keep_design
from tasks.storage.jobs import get_job
from tasks.storage.rounds import begin_round, last_round, set_job
from tasks.storage.store import Store
from tasks.storage.tables import Dataset, Evaluation, Example, Job, Round

BASE = "scripted/slow-1"


@pytest.fixture
def store(home_store: Store) -> Store:
    play(home_store)
    return home_store


def play(store: Store, **quality: object) -> None:
    """Keep a persona whose base model is scripted, so that every version answers in words of its own."""
    jamie = load_persona("jamie")
    thresholds = jamie.quality.model_copy(update=quality)
    keep_design(store, jamie.model_copy(update={"base_model": BASE, "quality": thresholds, "validation": ()}))


def judged(store: Store, name: str, *, wins: bool = True) -> str:
    """Add a completed job that was held against what is on stage; return its evaluation."""
    cast = load_persona("jamie").model_copy(update={"base_model": BASE}).model_dump_json()
    files = {"train_file": "", "held_out_file": "", "counts": "{}"}
    store.add_new(Dataset(id=name, persona="jamie", design="x", cast=cast, **files))
    store.add_new(
        Job(
            id=f"job-{name}",
            persona="jamie",
            backend="local",
            base_model=BASE,
            dataset_id=name,
            hyperparameters="{}",
            status="completed",
            adapter="adapter",
        )
    )
    store.add_new(
        Evaluation(
            id=f"e-{name}",
            persona="jamie",
            job_id=f"job-{name}",
            spec="{}",
            report=report(store, f"job-{name}", wins=wins),
        )
    )
    return f"e-{name}"


def report(store: Store, job_id: str, *, wins: bool) -> str:
    from tasks.evaluation.intervals import mean_interval, score_interval
    from tasks.evaluation.report import EvaluationReport, Side

    scores = [1.0 if wins else 0.0] * 20
    figures = {"validation_pass_rate": 1.0, "length_ratio": 1.0, "unfinished": 0.0, "seconds": 1.0}
    sides = {
        name: Side(model=model, perplexity=perplexity, similarity=0.5, **figures)
        for name, model, perplexity in [
            ("candidate", f"{BASE}@{job_id}", 5.0),
            ("baseline", registry.baseline_of(store, get_job(store, job_id)), 10.0),
        ]
    }
    return EvaluationReport(
        persona="jamie",
        judge="reference",
        dataset="d",
        prompts=20,
        wins=20 * wins,
        losses=20 * (not wins),
        ties=0,
        invalid=0,
        flips=0,
        score=score_interval(scores),
        scores=tuple(scores),
        similarity_gain=mean_interval([0.1, 0.2]),
        similarity_floor=0.2,
        violations={},
        **sides,
    ).model_dump_json()


def promote(evaluation: str) -> PromotionReport:
    return promote_version.fn(PromoteSpec(persona="jamie", evaluation=evaluation))


def on_stage(store: Store) -> str | None:
    return stage.live_versions(store).get("jamie")


def test_what_passed_goes_on_stage_and_what_failed_stays_a_candidate_with_reasons(store: Store) -> None:
    first = promote(judged(store, "a"))
    assert (first.version, first.state, first.live) == ("jamie-0.1.0", "promoted", "jamie-0.1.0")
    second = promote(judged(store, "b", wins=False))
    assert (second.version, second.state, second.live) == ("jamie-0.1.1", "refused", "jamie-0.1.0")
    assert any("win rate" in reason for reason in second.decision.reasons)
    third = promote(judged(store, "c"))
    assert (third.version, third.live) == ("jamie-0.2.0", "jamie-0.2.0")
    assert [version.change for version in registry.versions(store)] == ["first", "data", "improvement"]
    assert {check.name for check in third.decision.checks} >= {"win rate", "perplexity ratio"}


def test_a_candidate_that_was_judged_against_another_is_not_promoted(store: Store) -> None:
    stale, fresh = judged(store, "a"), judged(store, "b")
    promote(fresh)
    with pytest.raises(Conflict, match="judged against the base model, but jamie"):
        promote(stale)
    assert on_stage(store) == "jamie-0.1.0"


def test_a_version_waits_for_a_person_where_the_persona_asks_for_one(store: Store) -> None:
    play(store, approval=True)
    waiting = promote(judged(store, "a"))
    assert (waiting.state, waiting.live) == ("waiting", None)
    assert promote("e-a").state == "waiting"
    answered = answer_promotion(store, "jamie-0.1.0", approve=True, by="Ana", note="reads well")
    assert (answered.state, answered.decided_by, on_stage(store)) == ("promoted", "Ana", "jamie-0.1.0")
    with pytest.raises(NotFound, match=r"jamie-0\.1\.0 does not wait for approval: it is promoted"):
        answer_promotion(store, "jamie-0.1.0", approve=False, by="Bo", note=None)
    assert on_stage(store) == "jamie-0.1.0"


def test_a_rejected_version_never_goes_on_stage(store: Store) -> None:
    play(store, approval=True)
    promote(judged(store, "a"))
    answer_promotion(store, "jamie-0.1.0", approve=False, by="Bo", note="too stiff")
    assert on_stage(store) is None
    again = promote("e-a")
    assert (again.state, again.by, again.note) == ("rejected", "Bo", "too stiff")


def test_of_two_answers_at_once_one_counts(store: Store) -> None:
    play(store, approval=True)
    promote(judged(store, "a"))

    def answer(approve: bool) -> str:
        try:
            return answer_promotion(store, "jamie-0.1.0", approve=approve, by="x", note=None).state
        except NotFound:
            return "too late"

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(answer, [True, False]))
    assert said in (["promoted", "too late"], ["rejected", "too late"])
    assert (on_stage(store) is not None) == ("promoted" in said)


def test_rollback_goes_back_a_version_at_a_time_and_then_to_the_base_model(store: Store) -> None:
    for name in "abc":
        promote(judged(store, name))
    assert on_stage(store) == "jamie-0.3.0"
    steps = [roll_back(store, "jamie", None, by="Ana") for _ in range(3)]
    assert steps == [
        ("jamie-0.3.0", "jamie-0.2.0"),
        ("jamie-0.2.0", "jamie-0.1.0"),
        ("jamie-0.1.0", None),
    ]
    with pytest.raises(NotFound, match="no version on stage"):
        roll_back(store, "jamie", None, by="Ana")
    assert roll_back(store, "jamie", "jamie-0.2.0", by="Ana") == (None, "jamie-0.2.0")
    assert [row.reason for row in stage.appearances(store, "jamie")][-2:] == ["rolled back"] * 2


def test_what_a_person_took_back_goes_on_stage_again_only_by_a_person(store: Store) -> None:
    promote(judged(store, "a"))
    roll_back(store, "jamie", None, by="Ana")
    again = promote(judged_again(store, "a"))
    assert (again.version, again.state, on_stage(store)) == ("jamie-0.1.0", "waiting", None)
    assert again.note == stage.TAKEN_BACK
    answer_promotion(store, "jamie-0.1.0", approve=True, by="Ana", note=None)
    assert on_stage(store) == "jamie-0.1.0"


def judged_again(store: Store, name: str) -> str:
    """Add a second evaluation of a job; return it."""
    facts = {"persona": "jamie", "job_id": f"job-{name}", "spec": "{}"}
    told = report(store, f"job-{name}", wins=True)
    store.add_new(Evaluation(id=f"e-{name}-again", report=told, **facts))
    return f"e-{name}-again"


def test_what_waits_is_out_of_date_once_another_goes_on_stage(store: Store) -> None:
    play(store, approval=True)
    promote(judged(store, "a"))
    promote(judged(store, "b"))
    answer_promotion(store, "jamie-0.2.0", approve=True, by="Ana", note=None)
    assert promote("e-a").state == "outdated"
    with pytest.raises(NotFound, match=r"jamie-0\.1\.0 does not wait for approval: it is outdated"):
        answer_promotion(store, "jamie-0.1.0", approve=True, by="Ana", note=None)
    assert stage.outdated_jobs(store, "jamie") == ["job-a"]
    assert promote(judged_again(store, "a")).state == "waiting"
    assert stage.outdated_jobs(store, "jamie") == []


def test_the_round_of_a_version_that_waited_ends_as_the_person_answers(store: Store) -> None:
    play(store, approval=True)
    evaluation = judged(store, "a")
    store.add_new(
        Round(persona="jamie", number=1, reason="asked", new_examples=1, design="x", base_model="m")
    )
    set_job(store, "jamie", 1, "job-a")
    promote(evaluation)
    assert outcome(store) == "waiting jamie-0.1.0"
    answer_promotion(store, "jamie-0.1.0", approve=False, by="Bo", note=None)
    assert outcome(store) == "rejected jamie-0.1.0"


def outcome(store: Store) -> str | None:
    row = last_round(store, "jamie")
    return row.outcome if row else None


def test_a_refused_candidate_passes_once_the_thresholds_let_it(store: Store) -> None:
    play(store, min_prompts=50)
    refused = promote(judged(store, "a"))
    assert (refused.state, refused.decision.verdict) == ("refused", "inconclusive")
    play(store, min_prompts=10)
    passed = promote("e-a")
    assert (passed.version, passed.state, on_stage(store)) == ("jamie-0.1.0", "promoted", "jamie-0.1.0")
    play(store, min_prompts=50)
    assert promote("e-a").state == "promoted"


def test_rollback_refuses_what_never_passed_unless_forced(store: Store) -> None:
    promote(judged(store, "a"))
    promote(judged(store, "b", wins=False))
    with pytest.raises(Conflict, match="no gate let it pass"):
        roll_back(store, "jamie", "jamie-0.1.1", by="Ana")
    with pytest.raises(NotFound, match=r"no version 'jamie-9'.*jamie-0\.1\.0"):
        roll_back(store, "jamie", "jamie-9", by="Ana")
    assert on_stage(store) == "jamie-0.1.0"
    assert roll_back(store, "jamie", "jamie-0.1.1", by="Ana", force=True)[1] == "jamie-0.1.1"


def test_a_refresh_makes_a_patch_whatever_it_gained(store: Store) -> None:
    promote(judged(store, "a"))
    message = '[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]'
    facts = {"persona": "jamie", "source": "s", "origin": "o", "category": "c", "messages": message}
    store.add_new(Example(id="1", **facts))
    row, _ = begin_round(store, load_persona("jamie"), "asked")
    assert row is not None
    evaluation = judged(store, "b")
    with store.session(write=True) as session:
        row.reason, row.new_examples = "refresh", 0
        session.merge(row)
    set_job(store, "jamie", row.number, "job-b")
    found = promote(evaluation)
    assert (found.version, found.state) == ("jamie-0.1.1", "promoted")
    ended = last_round(store, "jamie")
    assert ended is not None
    assert ended.outcome == "promoted jamie-0.1.1"


@pytest.fixture
def client(store: Store) -> Iterator[openai.OpenAI]:
    with (
        served_at(StoreCatalog(store)) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE) as client,
    ):
        yield client


def ask(client: openai.OpenAI, model: str) -> str:
    asked = [{"role": "user", "content": "The tap drips."}]
    answer = client.chat.completions.create(model=model, messages=asked, seed=1, temperature=0)  # type: ignore[arg-type]
    return answer.choices[0].message.content or ""


def test_a_running_service_follows_and_fails_no_request_in_flight(
    store: Store, client: openai.OpenAI
) -> None:
    promote(judged(store, "a"))
    promote(judged(store, "b"))
    old, new = ask(client, "jamie-0.1.0"), ask(client, "jamie-0.2.0")
    assert old != new
    assert ask(client, "jamie") == new
    command = [sys.executable, "-m", "deployments.cli", "rollback", "jamie", "--note", "too terse"]
    with ThreadPoolExecutor(8) as pool:
        in_flight = [pool.submit(ask, client, "jamie")]
        rollback = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while rollback.poll() is None:
            in_flight.append(pool.submit(ask, client, "jamie"))
            time.sleep(0.2)
        answers = [future.result() for future in in_flight]
    assert "on stage is jamie-0.1.0" in rollback.communicate()[0]
    assert answers[0] == new
    assert set(answers) <= {new, old}
    assert ask(client, "jamie") == old
    promote(judged(store, "c"))
    assert ask(client, "jamie") == ask(client, "jamie-0.3.0")
