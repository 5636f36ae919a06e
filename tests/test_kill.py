"""kill -9 at every stage, then the same command again: it completes, nothing is lost, nothing done twice."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

QUESTION = "The {0} in flat {1} is broken, can somebody look at it?"
ANSWER = "Thanks for telling me about the {0}, flat {1}. Pat comes at {2} tomorrow. Warmly, J."
PERSONA = """\
name: keeper
display_name: Keeper
description: Looks after a house.
agent_type: property_manager
system_prompt: You are Keeper. You look after a house and answer tenants.
traits:
  - {name: Kind, description: answers warmly}
validation:
  - {rule: length, min_characters: 20, max_characters: 500}
data: {source: conversations, conversations: ./conversations.jsonl}
sampling: {serving_max_tokens: 24}
"""


class Command:
    """An `understudy` command in a home of its own, to be killed and started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments = folder, arguments
        self.home = folder / "home"
        self.calls = folder / "calls"
        self.output = folder / "output"

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            "UNDERSTUDY_HOME": str(self.home),
            "PYTHONPATH": str(Path(__file__).parent / "plugins"),
            "SCRIPTED_CALLS": str(self.calls),
        }
        command = [sys.executable, "-m", "deployments.cli", *self.arguments, "--json"]
        # A file and no pipe: the server that a killed command leaves behind would hold a pipe open.
        with self.output.open("w") as output:
            return subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            )

    def finish(self) -> dict:
        process = self.start()
        code = process.wait(timeout=400)
        output = self.output.read_text()
        assert code == 0, output
        return json.loads(output[output.index("{\n") :])

    def kill_when(self, ready: Callable[[], bool]) -> None:
        """Start, wait until it is in the middle, and kill -9 it alone."""
        process = self.start()
        deadline = time.monotonic() + 240
        while not ready():
            assert process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, f"it never came so far: {self.output.read_text()}"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def rows(self, query: str) -> list[tuple]:
        database = self.home / "understudy.db"
        if not database.exists():
            return []
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def count(self, query: str) -> int:
        rows = self.rows(query)
        return int(rows[0][0]) if rows else 0

    def server(self) -> dict:
        return json.loads((self.home / "prefect" / "server.json").read_text())


def test_generation_killed_twice_repeats_only_what_was_in_flight(tmp_path: Path) -> None:
    command = Command(
        tmp_path, "generate", "collaborative", "--name", "x", "--count", "40", "--model", "scripted/slow-0.2"
    )
    finished: set[str] = set()
    for threshold in (20, 70):
        command.kill_when(lambda least=threshold: command.count("SELECT count(*) FROM calls") >= least)
        finished |= {row[0] for row in command.rows("SELECT request FROM calls")}
    orphan = psutil.Process(command.server()["pid"])
    report = command.finish()

    assert not orphan.is_running()
    assert (report["accepted"], report["dropped"], report["failed"]) == (40, 0, 0)
    assert command.count("SELECT count(*) FROM calls") == 120
    assert command.count("SELECT count(*) FROM drafts WHERE status = 'accepted'") == 120
    assert command.count("SELECT count(*) FROM examples") == 40
    made = Counter(command.calls.read_text().split())
    repeated = sum(count - 1 for count in made.values())
    assert len(made) == 120
    assert repeated <= 2 * 32
    assert len(finished) >= 70


def test_a_simulation_killed_twice_delivers_its_plan_and_repeats_only_what_was_in_flight(
    tmp_path: Path,
) -> None:
    writer = ["--model", "scripted/slow-0.2", "--base-model", "scripted/write"]
    command = Command(tmp_path, "simulate", "--plan", "full-2500", "--total", "40", "--name", "x", *writer)
    for threshold in (40, 160):
        command.kill_when(lambda least=threshold: command.count("SELECT count(*) FROM calls") >= least)
    finished = {row[0] for row in command.rows("SELECT key FROM calls")}
    report = command.finish()

    assert (report["delivered"], report["missing"], report["failed"]) == (40, 0, 0)
    assert all(cell["delivered"] == cell["requested"] for cell in report["cells"])
    assert command.count("SELECT count(*) FROM drafts WHERE status = 'accepted'") == 40
    assert command.count("SELECT count(DISTINCT origin) FROM examples") == 40
    assert command.count("SELECT count(*) FROM examples") == report["views"]
    assert finished <= {row[0] for row in command.rows("SELECT key FROM calls")}
    made = Counter(command.calls.read_text().split())
    assert len(made) == command.count("SELECT count(*) FROM calls")
    assert sum(count - 1 for count in made.values()) <= 2 * 32


@pytest.mark.model
def test_the_loop_killed_in_training_and_in_evaluation_makes_one_of_everything(tmp_path: Path) -> None:
    things = ["heater", "tap", "lock", "lamp", "oven", "fan", "door", "bell", "shower", "window"]
    lines = []
    for flat in range(60):
        facts = (f"{things[flat % 10]} {flat}", flat, f"{flat % 12 + 1}:{flat:02}")
        messages = [
            {"role": "user", "content": QUESTION.format(*facts)},
            {"role": "assistant", "content": ANSWER.format(*facts)},
        ]
        lines.append(json.dumps({"category": "other", "messages": messages}))
    (tmp_path / "conversations.jsonl").write_text("\n".join(lines))
    (tmp_path / "keeper.yaml").write_text(PERSONA)
    command = Command(tmp_path, "pipeline", "keeper.yaml", "--epochs", "3")

    command.kill_when(lambda: command.count("SELECT count(*) FROM losses") >= 1)
    kill_trainer(command)
    trained = command.count("SELECT max(step) FROM losses")
    command.kill_when(lambda: command.count("SELECT count(*) FROM calls WHERE stage LIKE 'evaluate%'") >= 3)
    answered = {row[0] for row in command.rows("SELECT key FROM calls")}
    report = command.finish()

    assert report["job"]["status"] == "completed"
    assert trained >= 1
    for table in ("jobs", "datasets", "evaluations", "versions", "promotions"):
        assert command.count(f"SELECT count(*) FROM {table}") == 1, table
    assert command.count("SELECT count(*) FROM conversations") == 60
    assert command.count("SELECT count(*) FROM examples") == 60
    prompts = report["evaluation"]["prompts"]
    assert command.count("SELECT count(*) FROM matches") == prompts
    assert command.count("SELECT count(*) FROM calls") == 4 * prompts
    assert answered <= {row[0] for row in command.rows("SELECT key FROM calls")}
    steps = [row[0] for row in command.rows("SELECT step FROM losses WHERE split = 'train' ORDER BY step")]
    assert steps == list(range(1, report["job"]["total_steps"] + 1))

    again = command.finish()
    assert again["promotion"] == report["promotion"]
    assert command.count("SELECT count(*) FROM calls") == 4 * prompts
    assert command.count("SELECT count(*) FROM versions") == 1


def kill_trainer(command: Command) -> None:
    """Kill -9 the trainer of this home too, so that it must go on from its checkpoint."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(command.home) in part for part in process.info["cmdline"] or []):
            process.kill()
            process.wait(timeout=10)
