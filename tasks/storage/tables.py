"""The tables, one class each: the nouns of the product as rows.

Does not know any query. Text columns named in a comment as JSON hold canonical JSON; times are ISO 8601
in UTC, so that an export is a function of the rows.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlmodel import Field, SQLModel


def now() -> str:
    """Return the present time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Call(SQLModel, table=True):
    """A finished model call: the ledger."""

    __tablename__ = "calls"

    key: str = Field(primary_key=True)
    kind: str
    stage: str = Field(index=True)
    model: str
    request: str  # JSON
    response: str  # JSON
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # US dollars; none where the price is not known
    seconds: float
    created_at: str = Field(default_factory=now)


class Run(SQLModel, table=True):
    """A generation run: its name and what was asked for."""

    __tablename__ = "runs"

    name: str = Field(primary_key=True)
    persona: str = Field(index=True)
    spec: str  # JSON
    created_at: str = Field(default_factory=now)


class Draft(SQLModel, table=True):
    """The outcome of one stage for one position of a run: accepted, dropped or failed."""

    __tablename__ = "drafts"

    run: str = Field(primary_key=True, foreign_key="runs.name")
    stage: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    status: str = Field(index=True)
    text: str
    model: str
    attempts: int
    reasons: str  # JSON
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    seconds: float
    created_at: str = Field(default_factory=now)


class Conversation(SQLModel, table=True):
    """A conversation that took place; its id is its content."""

    __tablename__ = "conversations"

    id: str = Field(primary_key=True)
    persona: str = Field(primary_key=True)
    category: str
    source: str
    messages: str  # JSON
    created_at: str = Field(default_factory=now)


class Example(SQLModel, table=True):
    """Something to learn from: messages that end in the persona's own turn."""

    __tablename__ = "examples"

    id: str = Field(primary_key=True)
    persona: str = Field(index=True)
    source: str
    origin: str = Field(index=True)  # the conversation's id, or run:position
    category: str
    messages: str  # JSON
    round: int | None = Field(default=None, index=True)  # the training round that first took it up
    created_at: str = Field(default_factory=now)


class Design(SQLModel, table=True):
    """A persona of one's own, as its file was when it was last given."""

    __tablename__ = "designs"

    name: str = Field(primary_key=True)
    definition: str  # JSON
    updated_at: str = Field(default_factory=now)


class Dataset(SQLModel, table=True):
    """A snapshot of examples, split; its id is the hash of both files."""

    __tablename__ = "datasets"

    id: str = Field(primary_key=True)
    persona: str = Field(index=True)
    design: str
    cast: str  # JSON: the persona as it was when its examples were frozen
    train_file: str
    held_out_file: str
    counts: str  # JSON
    created_at: str = Field(default_factory=now)


class Job(SQLModel, table=True):
    """A fine-tuning job; its id is the hash of data, base model and hyperparameters."""

    __tablename__ = "jobs"

    id: str = Field(primary_key=True)
    persona: str = Field(index=True)
    backend: str
    backend_id: str | None = None
    base_model: str
    dataset_id: str = Field(foreign_key="datasets.id")
    hyperparameters: str  # JSON
    status: str = Field(index=True)
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    trained_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    error: str | None = None
    adapter: str | None = None
    restarts: int = 0
    stuck: str | None = None  # why it is held to be stuck
    created_at: str = Field(default_factory=now)
    updated_at: str = Field(default_factory=now)
    progressed_at: str = Field(default_factory=now)


class Round(SQLModel, table=True):
    """A round of training: the examples that are new since the last one, and what became of them."""

    __tablename__ = "rounds"

    persona: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    reason: str
    new_examples: int
    seed: int = 0
    design: str
    base_model: str
    job_id: str | None = Field(default=None, index=True)
    outcome: str | None = None
    judge: str | None = None  # who judges it, where somebody chose
    told: str | None = None  # the step that was last asked for as an event
    told_at: str | None = None
    asked: int = 0  # how often it was asked for
    created_at: str = Field(default_factory=now)
    ended_at: str | None = None


class Loss(SQLModel, table=True):
    """A point of a job's loss curve."""

    __tablename__ = "losses"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    split: str = Field(primary_key=True)
    step: int = Field(primary_key=True)
    loss: float


class JobEvent(SQLModel, table=True):
    """Something that happened to a job, in order."""

    __tablename__ = "job_events"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id")
    position: int = Field(primary_key=True)
    at: str
    message: str


class Evaluation(SQLModel, table=True):
    """A candidate held against a baseline on held-out prompts."""

    __tablename__ = "evaluations"

    id: str = Field(primary_key=True)
    persona: str = Field(index=True)
    job_id: str = Field(foreign_key="jobs.id", index=True)
    spec: str  # JSON
    report: str  # JSON
    created_at: str = Field(default_factory=now)


class Match(SQLModel, table=True):
    """One held-out prompt answered by both and judged; `score` is the candidate's, 0 to 1."""

    __tablename__ = "matches"

    evaluation_id: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    question: str
    reference: str
    candidate_answer: str
    baseline_answer: str
    score: float
    reason: str


class Version(SQLModel, table=True):
    """A tuned model with its semantic number and lineage; one job makes at most one version."""

    __tablename__ = "versions"

    name: str = Field(primary_key=True)
    persona: str = Field(index=True)
    number: str
    change: str  # what made the number: first, redesign, improvement, data or refresh
    job_id: str = Field(foreign_key="jobs.id", unique=True)
    evaluation_id: str = Field(foreign_key="evaluations.id")
    parent: str | None = None
    base_model: str
    dataset_id: str
    design: str
    created_at: str = Field(default_factory=now)


class Promotion(SQLModel, table=True):
    """A decision of the gate, with every check, whichever way it went, and what a person said to it."""

    __tablename__ = "promotions"

    evaluation_id: str = Field(primary_key=True, foreign_key="evaluations.id")
    persona: str = Field(index=True)
    version: str = Field(foreign_key="versions.name")
    verdict: str
    decision: str  # JSON
    state: str  # promoted, refused, waiting for a person, rejected by one, or outdated before one answered
    baseline: str | None = None  # the version that was on stage when it was judged
    decided_by: str | None = None
    note: str | None = None
    decided_at: str | None = None
    created_at: str = Field(default_factory=now)


class Live(SQLModel, table=True):
    """Which version of a persona is on stage."""

    __tablename__ = "live"

    persona: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.name")
    since: str = Field(default_factory=now)


class Appearance(SQLModel, table=True):
    """A change of who is on stage, in order; no version means the base model."""

    __tablename__ = "appearances"

    persona: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    version: str | None = Field(default=None, foreign_key="versions.name")
    reason: str  # promoted, approved or rolled back
    by: str | None = None
    note: str | None = None
    at: str = Field(default_factory=now)


class Lease(SQLModel, table=True):
    """Who works on something that only one may work on, until when (Unix seconds)."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True)
    holder: str
    until: float
