"""Rounds of training: begin what is due, and ask for each round's next step.

Does not know how any step is done. A round is examples → job → evaluation → decision; its next step follows
from the rows alone, so that whoever looks, after whatever crash, asks for the same one.
"""

from __future__ import annotations

from prefect import task

from agents.errors import NotFound
from agents.schemas import Frozen
from tasks.cast import cast, find_persona
from tasks.evaluation.gate import GateVerdict, decide
from tasks.evaluation.report import EvaluationReport
from tasks.events import is_heard, tell
from tasks.notices import announce, of_round
from tasks.storage import registry, stage
from tasks.storage.jobs import get_job
from tasks.storage.rounds import (
    appoint_judge,
    begin_round,
    end_round,
    example_counts,
    get_round,
    last_round,
    mark_told,
    round_of_job,
    rounds,
    standing,
)
from tasks.storage.store import Store, open_store
from tasks.storage.tables import Evaluation, Round
from tasks.training.base import TERMINAL
from tasks.training.rounds import Reason

ASKS = 5  # for one step of a round, some ten minutes apart; then the round has failed
VERDICTS: dict[GateVerdict, str] = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}


class Step(Frozen):
    """What a round waits for; `event` asks for it."""

    name: str
    event: str
    about: str
    payload: dict[str, str]


class RoundReport(Frozen):
    """Which round a persona is in, or why there is none to begin."""

    persona: str
    number: int | None = None
    seed: int = 0
    new_examples: int = 0
    reason: str | None = None
    refusal: str | None = None


def examples_arrived(store: Store, persona_name: str, added: int) -> None:
    """Tell of new examples, and begin a round if they crossed the persona's threshold."""
    if not added:
        return
    persona = find_persona(store, persona_name)
    found = standing(store, persona.name)
    tell(
        "examples.accepted",
        persona.name,
        persona=persona.name,
        added=added,
        new=found.new_examples,
        threshold=persona.retraining.threshold,
    )
    begin_due(store, persona.name)


def begin_due(store: Store, persona_name: str) -> Round | None:
    """Begin a round if the persona's threshold is crossed, and ask for its training."""
    begun, _ = begin_round(store, find_persona(store, persona_name), "threshold")
    if begun is not None:
        move_on(store, begun)
    return begun


@task(name="take-up-round", task_run_name="take-up[{persona_name}]")
def take_up_round(persona_name: str, reason: Reason, judge: str | None = None) -> RoundReport:
    """Return the round to train: one under way that has no job yet, else one that begins now.

    Who is named as judge decides on the round, whoever asks for the evaluation. A report without a number
    says why there is nothing to train.
    """
    store = open_store()
    persona = find_persona(store, persona_name)
    row = last_round(store, persona.name)
    is_open = row is not None and row.ended_at is None
    if row is not None and is_open and row.job_id is None:
        return _report(store, row, judge)
    if row is not None and is_open and reason != "asked":
        under_way = f"Round {row.number} of {persona.name} is under way with {row.job_id}."
        return RoundReport(persona=persona.name, refusal=under_way)
    begun, refusal = begin_round(store, persona, reason, judge)
    found = begun or (row if is_open else None)
    return _report(store, found, judge) if found else RoundReport(persona=persona.name, refusal=refusal)


@task(name="latest-round", task_run_name="round[{persona_name}]")
def latest_round(persona_name: str, judge: str | None = None) -> RoundReport:
    """Return the round that holds the persona's newest examples, begun now if some are in none."""
    store = open_store()
    persona = find_persona(store, persona_name)
    row = begin_round(store, persona, "asked", judge)[0] or last_round(store, persona.name)
    return _report(store, row, judge) if row else RoundReport(persona=persona.name)


def _report(store: Store, row: Round, judge: str | None) -> RoundReport:
    if judge is not None and row.judge != judge:
        appoint_judge(store, row, judge)
    return RoundReport(
        persona=row.persona,
        number=row.number,
        seed=row.seed,
        new_examples=row.new_examples,
        reason=row.reason,
    )


@task(name="reconcile-rounds")
def reconcile_rounds() -> list[str]:
    """Begin every round that is due, ask for what rounds wait for, and return what was done as sentences.

    Stateless: events that were lost with a process or a server are told again from the rows.
    """
    store, said = open_store(), []
    for row in rounds(store, open_only=True):
        step = move_on(store, row)
        if step is not None:
            said.append(f"Round {row.number} of {row.persona}: asked for what follows '{step.name}'.")
    known = cast(store)
    for persona, (_, new) in example_counts(store).items():
        if new and persona in known and (begun := begin_due(store, persona)) is not None:
            said.append(f"Round {begun.number} of {persona} began with {begun.new_examples} new examples.")
    return said


@task(name="tell-judged", task_run_name="tell-judged[{evaluation_id}]")
def tell_judged(evaluation_id: str) -> None:
    """Tell that an evaluation is there: as the next step of its round, or by itself if that has ended."""
    store = open_store()
    evaluation = registry.get_evaluation(store, evaluation_id)
    if evaluation is None:
        raise NotFound(
            f"There is no evaluation {evaluation_id!r}.", "`understudy evaluate PERSONA` makes one."
        )
    row = round_of_job(store, evaluation.job_id)
    if row is not None and row.ended_at is None:
        move_on(store, row)
    elif stage.get_promotion(store, evaluation.id) is None:
        step = _judged(store, evaluation)
        tell(step.event, step.about, persona=evaluation.persona, **step.payload)


def move_on(store: Store, row: Round) -> Step | None:
    """Ask for a round's next step unless somebody just did, or close it; return what was asked for."""
    step = next_step(store, row)
    if isinstance(step, str):
        if end_round(store, row, step):
            begin_due(store, row.persona)
        return None
    if step is None:
        return None
    times = mark_told(store, row, step.name, again_after=store.settings.retell_seconds)
    if times == 0:
        return None
    if times > ASKS and is_heard():
        _fail(store, row, f"asked {ASKS} times for what follows '{step.name}', in vain: look at the runs")
        return None
    tell(step.event, step.about, persona=row.persona, round=row.number, **step.payload)
    return step


def next_step(store: Store, row: Round) -> Step | str | None:
    """Return the step that a round waits for, its outcome once it has one, or None while its job runs."""
    if row.job_id is None:
        about = f"{row.persona}-{row.number}"
        return Step(name="begun", event="round.due", about=about, payload={"reason": row.reason})
    job = get_job(store, row.job_id)
    if job.status not in TERMINAL:
        return None
    if job.status != "completed":
        return "cancelled" if job.status == "cancelled" else f"failed: {job.error}"
    evaluation = registry.standing_evaluation(store, job)
    if evaluation is None:
        return Step(name="trained", event="job.completed", about=job.id, payload={"job": job.id})
    decided = stage.get_promotion(store, evaluation.id)
    if decided is None:
        return _judged(store, evaluation)
    return f"{decided.state} {decided.version}"


def _judged(store: Store, evaluation: Evaluation) -> Step:
    report = EvaluationReport.model_validate_json(evaluation.report)
    verdict = decide(report, find_persona(store, evaluation.persona).quality).verdict
    return Step(
        name=f"judged {evaluation.id}",
        event=f"evaluation.{VERDICTS[verdict]}",
        about=evaluation.id,
        payload={"evaluation": evaluation.id, "job": evaluation.job_id},
    )


@task(name="fail-round", task_run_name="fail-round[{persona_name}]")
def fail_round(persona_name: str, number: int, reason: str) -> None:
    """Close a round that could not be trained, with the reason."""
    store = open_store()
    _fail(store, get_round(store, persona_name, number), reason)


def _fail(store: Store, row: Round, reason: str) -> None:
    if end_round(store, row, f"failed: {reason}"):
        announce(of_round(store, get_round(store, row.persona, row.number)))
