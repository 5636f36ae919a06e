"""The loop that runs itself: a real Prefect server, a real worker, events and automations, end to end."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from keeper import write_conversations, write_keeper
from services import ROOT, Services, services

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
DEPLOYED = {entry["name"] for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}


@pytest.fixture(scope="module")
def notified() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen for notifications; give the address and what has arrived."""
    arrived: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", arrived
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, notified: tuple[str, list[dict[str, Any]]]
) -> Iterator[Services]:
    with services(tmp_path_factory.mktemp("loop"), UNDERSTUDY_NOTIFY_URL=notified[0]) as found:
        yield found


def everything(house: Services) -> list[tuple[str, object]]:
    """Return what is registered, without what changes by itself."""
    deployments = house.post("/deployments/filter", {})
    automations = house.post("/automations/filter", {})
    return sorted(
        [
            *((d["name"], [(s["id"], s["schedule"]) for s in d["schedules"]]) for d in deployments),
            *((a["name"], (a["id"], a["trigger"]["expect"])) for a in automations),
        ]
    )


def test_deploying_again_changes_nothing(house: Services) -> None:
    before = everything(house)
    assert {name for name, _ in before if not name.startswith("understudy")} == DEPLOYED
    done = json.loads(house.understudy("deploy", "--json"))
    assert set(done["automations"].values()) == {"unchanged"}
    assert done["notifications"] == "on"
    assert [name for name, _ in everything(house)] == [name for name, _ in before]
    assert everything(house) == before


def test_the_worker_runs_a_deployment(house: Services) -> None:
    chain = {"rungs": [{"model": "scripted/write"}]}
    asked = {"name": "served", "persona": "collaborative", "count": 3, "writers": chain, "actors": chain}
    house.run("generate", spec=asked)
    assert house.count("examples WHERE persona = 'collaborative'") == 3
    assert (house.home / "objects" / "runs" / "served" / "served.jsonl").exists()


def collect(house: Services, flats: range) -> tuple[str, ...]:
    """Return the command that brings in the conversations of these flats."""
    path = write_conversations(house.folder / f"flats-{flats.start}.jsonl", flats)
    return ("collect", "keeper.yaml", "--file", path.name)


def finish_training(house: Services) -> None:
    """Wait until the trainer is done and look at its job, as the schedule does every two minutes."""

    def ended() -> bool:
        states = [json.loads(path.read_text()) for path in house.home.glob("objects/jobs/*/state.json")]
        jobs = house.count("jobs")
        return jobs > 0 and sum(state["status"] == "completed" for state in states) == jobs

    house.wait(ended, 240, "a trainer that is done")
    house.run("watch", spec={"follow": False})


def outcome(house: Services, number: int) -> Any:
    rows = house.rows(f"SELECT outcome FROM rounds WHERE persona = 'keeper' AND number = {number}")
    return rows[0][0] if rows else None


def test_enough_new_examples_become_a_version_on_stage_exactly_once(
    house: Services, notified: tuple[str, list[dict[str, Any]]]
) -> None:
    write_keeper(house.folder)
    house.understudy(*collect(house, range(12)))
    assert house.count("rounds WHERE persona = 'keeper'") == 0

    house.kill("server")
    house.start_server()
    emitters = [
        house.start(f"emitter-{start}", "deployments.cli", *collect(house, range(start, start + 8)))
        for start in (12, 20)
    ]
    assert [emitter.wait(timeout=300) for emitter in emitters] == [0, 0], house.log("emitter-12")
    house.wait(lambda: house.count("jobs") == 1, 120, "a job for the examples")
    assert house.rows("SELECT number, reason FROM rounds WHERE persona = 'keeper'") == [(1, "threshold")]

    house.kill("server")
    house.start_server()
    finish_training(house)
    house.wait(lambda: outcome(house, 1), 240, "a decision on round 1")
    assert outcome(house, 1) == "promoted keeper-0.1.0"
    retrained = [(run["state_name"], run["parameters"]) for run in house.flow_runs("retrain", begun=True)]
    assert retrained == [("Completed", {"spec": {"persona": "keeper", "reason": "threshold"}})]
    for flow in ("evaluate", "promote"):
        house.wait(lambda flow=flow: house.flow_runs(flow, state="Completed"), 60, f"the end of {flow}")
        assert len(house.flow_runs(flow)) == 1, flow
    for table in ("jobs", "evaluations", "versions", "promotions"):
        assert house.count(table) == 1, table
    house.wait(
        lambda: [note for note in notified[1] if note["subject"] == "Understudy: keeper-0.1.0 promoted"],
        60,
        "the notification",
    )


def test_a_person_approves_the_next_version_in_prefects_ui(
    house: Services, notified: tuple[str, list[dict[str, Any]]]
) -> None:
    write_keeper(house.folder, approval=True)
    taken = house.count("examples WHERE persona = 'keeper'")
    new = house.rows("SELECT count(*) FROM examples WHERE persona = 'keeper' AND round IS NULL")[0][0]
    house.understudy(*collect(house, range(taken, taken + 20 - new)))
    house.wait(lambda: house.count("jobs") == 2, 120, "a second job")
    finish_training(house)
    house.wait(lambda: outcome(house, 2), 240, "a decision on round 2")
    (name,) = house.rows("SELECT version FROM promotions WHERE state = 'waiting'")[0]
    assert house.rows("SELECT version FROM live") == [("keeper-0.1.0",)]
    shown = json.loads(house.understudy("status", "--json"))
    keeper = next(row for row in shown["personas"] if row["persona"] == "keeper")
    assert keeper["waiting"] == [name]
    assert f"understudy approve {name}" in keeper["next"][0]

    (evaluation,) = house.rows("SELECT evaluation_id FROM promotions WHERE state = 'waiting'")[0]
    house.begin(
        "promote", spec={"persona": "keeper", "evaluation": evaluation}
    )  # asked for twice, after a crash
    house.wait(lambda: len(house.flow_runs("promote", state="Suspended")) == 2, 120, "two suspended runs")
    run = house.flow_runs("promote", state="Suspended")[0]
    house.post(f"/flow_runs/{run['id']}/resume", {"run_input": {"approve": True, "by": "Ana", "note": "ok"}})
    house.wait(lambda: house.rows("SELECT version FROM live") == [(name,)], 120, "the version on stage")
    assert house.rows("SELECT state, decided_by FROM promotions WHERE state <> 'refused'")[-1] == (
        "promoted",
        "Ana",
    )
    house.wait(lambda: not house.flow_runs("promote", state="Suspended"), 60, "the end of both runs")
    assert house.count("appearances") == 2
    subjects = {f"Understudy: {name} {what}" for what in ("waiting", "promoted")}
    house.wait(lambda: subjects <= {note["subject"] for note in notified[1]}, 60, "both notifications")


def test_nothing_changed_trains_nothing_and_says_so(house: Services) -> None:
    house.run("retrain", spec={"persona": "keeper", "reason": "asked"})
    assert house.count("jobs") == 2
    said = house.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["retrain"]}}})
    assert any("Nothing changed since round 2 of keeper" in str(artifact["data"]) for artifact in said)


def test_status_says_when_the_worker_uses_another_home(house: Services, tmp_path: Path) -> None:
    house.run("watch", spec={"follow": False})
    assert json.loads(house.understudy("status", "--json"))["runs"]["elsewhere"] is False
    other = Services(tmp_path)
    other.environment["PREFECT_API_URL"] = house.url
    said = other.understudy("status")
    assert f"ANOTHER HOME: {house.home / 'understudy.db'} on" in said
    assert str(other.home / "understudy.db") in said


def test_the_gate_shows_every_check_in_prefects_ui(house: Services) -> None:
    found = house.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["gate-keeper"]}}})
    names = {row["name"] for row in json.loads(found[0]["data"])}
    assert {"win rate", "perplexity ratio", "prompts judged"} <= names


SILENTLY = """
from datetime import UTC, datetime, timedelta
from tasks.storage.stage import appearances, put_on_stage
from tasks.storage.store import open_store
store = open_store()
put_on_stage(store, "keeper", "keeper-0.1.0", by="Ana")
row = appearances(store, "keeper")[-1]
row.at = (datetime.now(UTC) - timedelta(minutes=5)).isoformat(timespec="milliseconds")
with store.session(write=True) as session:
    session.merge(row)
"""


def test_what_died_untold_with_its_process_is_told_once(
    house: Services, notified: tuple[str, list[dict[str, Any]]]
) -> None:
    """Whoever rolled back died before anybody heard of it."""
    subprocess.run([sys.executable, "-c", SILENTLY], env=house.environment, check=True)

    def told() -> int:
        return sum("rolled-back" in note["subject"] for note in notified[1])

    assert told() == 0
    for _ in range(3):
        house.run("watch", spec={"follow": False})
    house.wait(told, 60, "the notification")
    assert told() == 1


def test_deploying_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    alone = Services(tmp_path)
    del alone.environment["PREFECT_API_URL"]
    assert alone.understudy("deploy", code=2) == ""
    alone.environment["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    assert alone.understudy("deploy", code=1) == ""
