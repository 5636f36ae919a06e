"""kill -9 of every part at every stage of the loop: it goes on, and nothing is lost or done twice.

A row a killed thing, a column a stage. Each row is a loop of its own, from generation to a version on stage;
its thing dies once in every stage and is started again at once, as an init system would.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crashes import CrashHouse, crash_house
from keeper import write_conversations, write_keeper

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

THINGS = ("flow", "worker", "server", "database")
REAL, WRITTEN = 12, 40  # conversations; examples to write: together they cross the threshold
CALLS = 3 * WRITTEN
IN_FLIGHT = 32  # tasks/policies.py: CONCURRENT_CALLS
LOOK = 40.0  # the schedule looks every two minutes; here somebody does more often
PATIENCE = 240.0
NEWS = "news of the version"  # what Prefect heard; shown and not held against anybody


@dataclass
class Matrix:
    """What became of each kill, and how long after it the stage was over (the restart included)."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)

    def __str__(self) -> str:
        columns = [*(stage.name for stage in STAGES), NEWS]
        head = ["killed", *columns]
        lines = [[thing, *(self.cells.get((thing, name), "–") for name in columns)] for thing in THINGS]
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        return "\n".join(
            " │ ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in [head, *lines]
        )


@dataclass
class Loop:
    """One persona's way from generation to the stage, in which one thing is killed again and again."""

    house: CrashHouse
    thing: str
    asked_before: int = 0
    looked: float = 0.0
    by_hand: int = 0
    trains_in: Path | None = None

    @property
    def persona(self) -> str:
        return f"keeper-{self.thing}"

    def count(self, table: str, condition: str = "true") -> int:
        return int(
            self.house.one(f"SELECT count(*) FROM {table} WHERE persona = '{self.persona}' AND {condition}")
        )

    def job(self) -> Any:
        found = self.house.rows(f"SELECT id, status, restarts FROM jobs WHERE persona = '{self.persona}'")
        return found[0] if found else None

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Return the runs of a flow that are about this persona, oldest first."""
        return [
            run for run in self.house.flow_runs(flow) if self.persona in str(run["parameters"].get("spec"))
        ]

    def open_run(self, flow: str) -> dict[str, Any]:
        """Return the run of a flow that runs now."""
        found: dict[str, Any] = self.house.wait(
            lambda: [run for run in self.runs(flow) if run["state_type"] == "RUNNING"], 60, f"{flow} running"
        )[-1]
        return found

    def look(self, every: float = LOOK) -> None:
        """Look after open jobs and rounds, unless we did in so many seconds."""
        if time.monotonic() - self.looked > every:
            self.looked = time.monotonic()
            self.house.begin("watch", spec={"follow": False})

    # generate

    def begin_generate(self) -> None:
        chain = {"rungs": [{"model": "scripted/slow-0.6"}]}
        path = str(self.house.folder / f"{self.persona}.yaml")
        spec = {"name": self.persona, "persona": path, "count": WRITTEN, "writers": chain, "actors": chain}
        self.house.begin("generate", spec={**spec, "seed": sum(map(ord, self.thing))})

    def calls(self) -> list[str]:
        return self.house.calls()[self.asked_before :]

    def generated(self) -> bool:
        runs = self.runs("generate")
        if runs and all(run["state_type"] == "FAILED" for run in runs):
            self.by_hand += 1
            self.begin_generate()
        return any(run["state_type"] == "COMPLETED" for run in runs) and self.count("examples") > REAL

    # train

    def trainer(self) -> str | None:
        """Return what the trainer says of itself, which needs no database."""
        if self.trains_in is None and (job := self.job()) is not None:
            self.trains_in = self.house.home / "objects" / "jobs" / job[0] / "state.json"
        told = self.trains_in is not None and self.trains_in.exists()
        return str(json.loads(self.trains_in.read_text())["status"]) if told else None

    def submitted(self) -> bool:
        """Tell whether the trainer is at work, and have it stand still until the next kill."""
        if self.trainer() != "running":
            return False
        self.house.hold_trainers(still=True)
        return True

    def go_on(self) -> None:
        self.house.hold_trainers(still=False)

    def trained(self) -> bool:
        _, status, restarts = self.job()
        abandoned = self.thing == "flow" and not restarts
        if status != "completed" and (abandoned or self.trainer() == "completed"):
            self.look(every=10.0)
        return bool(status == "completed")

    # evaluate

    def answered(self) -> int:
        return int(self.house.one(f"SELECT count(*) FROM calls WHERE model LIKE '%@{self.job()[0]}'"))

    # promote

    def waits(self) -> bool:
        waiting = self.count("promotions", "state = 'waiting'") == 1
        return waiting and any(run["state_name"] == "Suspended" for run in self.runs("promote"))

    def approve(self, now: bool) -> None:
        """Answer: before the kill where that is to hit the run that goes on, after it where it waits."""
        if not now:
            return
        (run,) = [run for run in self.runs("promote") if run["state_name"] == "Suspended"]
        answer = {"approve": True, "by": "Ana", "note": "ok"}
        self.house.post(f"/flow_runs/{run['id']}/resume", {"run_input": answer})

    def on_stage(self) -> bool:
        return self.count("live") == 1

    # all

    def survive(self, stage: "Stage") -> str:
        """Kill the thing in the middle of a stage, start it again, and say how the stage came to its end."""
        if stage.gate and stage.gate not in self.house.gates:
            self.house.close_gate(stage.gate)
        self.by_hand = 0
        stage.begin(self)
        self.house.wait(lambda: stage.ready(self), PATIENCE, f"the middle of {stage.name}")
        began = time.monotonic()
        self.kill(stage)
        if not stage.gate:
            assert stage.unfinished(self), "a miss: it was over before the kill"
        self.restart()
        if stage.gate:
            self.house.open_gate(stage.gate)
        stage.then(self)
        self.await_next(stage)
        self.looked = time.monotonic() - 10.0 * (stage.name == "train")
        while not stage.over(self):
            assert time.monotonic() - began < PATIENCE, f"never came to its end\n{self.story(stage)}"
            self.look()
            time.sleep(0.5)
        return f"ok {time.monotonic() - began:.0f} s, {self.how(stage)}"

    def await_next(self, stage: "Stage") -> None:
        """Close the gate of the stage that follows by itself before anybody can come to it."""
        following = STAGES[STAGES.index(stage) + 1 :]
        if following and following[0].begin is nothing and following[0].gate:
            self.house.close_gate(following[0].gate)

    def kill(self, stage: "Stage") -> None:
        if self.thing == "flow" and stage.flow is None:
            assert self.house.kill_trainers(), "a miss: nobody trains"
        elif self.thing == "flow":
            assert self.house.kill_flow(self.open_run(stage.flow)["id"]), "a miss: the flow has no process"
        else:
            {
                "worker": self.house.kill_worker,
                "server": self.house.kill_server,
                "database": self.house.kill_database,
            }[self.thing]()

    def restart(self) -> None:
        """Start what was killed; a flow is started by the automations."""
        if self.thing == "worker":
            self.house.start_worker()
        elif self.thing == "server":
            self.house.start_server()
        elif self.thing == "database":
            self.house.postgresql.start()

    def how(self, stage: "Stage") -> str:
        """Say how a stage came to its end."""
        if stage.flow is None:
            return "continued" if self.job()[2] else "went on"
        runs = [run for run in self.runs(stage.flow) if run["start_time"]]
        if self.by_hand:
            return "begun by hand"
        if len(runs) > 1:
            return "asked again"
        return "again" if runs and runs[0]["run_count"] > 1 + (stage.name == "approve") else "went on"

    def story(self, stage: "Stage") -> str:
        """Return what Prefect knows of a stage's runs, for who must find out what went wrong."""
        return "\n".join(
            f"{run['name']} {run['state_name']} {run['run_count']} {(run['state'] or {}).get('message')}"
            for run in self.runs(stage.flow or "watch")
        )


def always(_loop: Loop) -> bool:
    return True


def nothing(_loop: Loop) -> None:
    """Begin nothing: the stage before does."""


@dataclass(frozen=True)
class Stage:
    """A column: who does it, what begins it, when it is in its middle, what then, and when it is over."""

    name: str
    flow: str | None
    over: Callable[[Loop], bool]
    begin: Callable[[Loop], None] = nothing
    gate: str | None = None
    middle: Callable[[Loop], bool] | None = None
    then: Callable[[Loop], None] = nothing
    unfinished: Callable[[Loop], bool] = always

    def ready(self, loop: Loop) -> bool:
        if self.middle is not None and self.middle(loop):
            return True
        return self.gate is not None and loop.house.is_held(self.gate)


STAGES = (
    Stage(
        "generate",
        "generate",
        begin=Loop.begin_generate,
        middle=lambda loop: len(loop.calls()) > WRITTEN + 5,
        unfinished=lambda loop: len(loop.calls()) < CALLS,
        over=Loop.generated,
    ),
    Stage("submit", "retrain", gate="jobs", over=Loop.submitted),
    Stage(
        "train",
        None,
        middle=lambda loop: loop.trainer() == "running",
        unfinished=lambda loop: loop.trainer() == "running",
        then=Loop.go_on,
        over=Loop.trained,
    ),
    Stage(
        "evaluate",
        "evaluate",
        gate="evaluations",
        middle=lambda loop: loop.answered() > 0,
        over=lambda loop: loop.count("evaluations") == 1,
    ),
    Stage("promote", "promote", gate="promotions", over=Loop.waits),
    Stage(
        "approve",
        "promote",
        gate="promotions",
        begin=lambda loop: loop.approve(loop.thing == "flow"),
        middle=lambda loop: loop.thing != "flow" and loop.waits(),
        then=lambda loop: loop.approve(loop.thing != "flow"),
        over=Loop.on_stage,
    ),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashHouse]:
    with crash_house(tmp_path_factory.mktemp("crash")) as found:
        yield found


@dataclass(frozen=True)
class Silent:
    """Two runs of which nobody will hear: one killed with its worker, one taken by a worker that died."""

    killed: str
    taken: str


@pytest.fixture(scope="module")
def silent(house: CrashHouse) -> Silent:
    """Kill a machine, as it were; that it is silent is found while other things are killed."""
    house.hasten("silent run → crashed", 70)  # two heartbeats, and more than a restart of the server takes
    house.hasten("run that never began → crashed", 15)
    persona = write_keeper(house.folder, name="keeper-silent")
    file = write_conversations(house.folder / "keeper-silent.jsonl", range(REAL))
    asked = {"persona": str(persona), "file": str(file)}
    house.understudy("status")
    house.close_gate("examples")
    killed = house.begin("collect", **asked)
    house.wait(lambda: house.is_held("examples"), PATIENCE, "the middle of collecting")
    house.kill_worker()
    assert house.kill_flow(killed)
    house.open_gate("examples")
    taken = house.begin("collect", state="PENDING", **asked)
    house.start_worker()
    return Silent(killed, taken)


@pytest.fixture(scope="module")
def matrix(house: CrashHouse, request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """Print what became of the kills, and keep it beside the logs."""
    found = Matrix()
    yield found
    (house.folder / "matrix.txt").write_text(f"{found}\n")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{found}")


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("thing", THINGS)
def test_the_loop_survives_the_kills_of(thing: str, house: CrashHouse, matrix: Matrix) -> None:
    loop = Loop(house, thing, asked_before=len(house.calls()))
    write_keeper(house.folder, name=loop.persona, approval=True)
    real = write_conversations(house.folder / f"{loop.persona}.jsonl", range(REAL))
    house.understudy("collect", f"{loop.persona}.yaml", "--file", real.name)
    for stage in STAGES:
        matrix.cells[thing, stage.name] = "WENT WRONG"
        matrix.cells[thing, stage.name] = loop.survive(stage)
        assert matrix.cells[thing, stage.name].startswith("ok")
    nothing_lost_or_doubled(loop)
    matrix.cells[thing, NEWS] = ", ".join(news.rpartition(".")[2] for news in house.news(f"{loop.persona}-"))


def nothing_lost_or_doubled(loop: Loop) -> None:
    """Check that a loop left one of everything, and nothing behind."""
    house, job = loop.house, loop.job()[0]
    written = f"source = 'synthetic' AND origin LIKE '{loop.persona}:%'"
    assert (loop.count("examples"), loop.count("examples", written)) == (REAL + WRITTEN, WRITTEN)
    made = loop.calls()
    assert len(set(made)) == CALLS
    assert len(made) - CALLS <= IN_FLIGHT
    for table in ("rounds", "datasets", "jobs", "evaluations", "versions", "promotions", "appearances"):
        assert loop.count(table) == 1, table
    assert house.rows(f"SELECT state, decided_by FROM promotions WHERE persona = '{loop.persona}'") == [
        ("promoted", "Ana")
    ]
    steps = house.rows(f"SELECT step FROM losses WHERE job_id = '{job}' AND split = 'train' ORDER BY step")
    total = house.one(f"SELECT total_steps FROM jobs WHERE id = '{job}'")
    assert [step for (step,) in steps] == list(range(1, total + 1))
    ended = ("COMPLETED", "CRASHED", "FAILED", "CANCELLED")
    house.wait(
        lambda: all(
            run["state_type"] in ended
            for flow in ("generate", "retrain", "evaluate", "promote")
            for run in loop.runs(flow)
        ),
        120,
        "the end of every run",
    )
    house.wait(lambda: not house.taken_slots(), 60, "every slot given back")


def test_what_died_with_its_worker_is_found_by_its_silence(house: CrashHouse, silent: Silent) -> None:
    for run, attempts in ((silent.killed, 2), (silent.taken, 1)):
        found = house.wait(lambda run=run: completed(house, run), PATIENCE, "a silent run that began again")
        assert found["run_count"] == attempts
    assert house.one("SELECT count(*) FROM examples WHERE persona = 'keeper-silent'") == REAL


def completed(house: CrashHouse, run: str) -> dict[str, Any] | None:
    found = next(one for one in house.flow_runs("collect") if one["id"] == run)
    return found if found["state_type"] == "COMPLETED" else None
