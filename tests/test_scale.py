"""The same command, unchanged, on PostgreSQL throughout: our tables and Prefect's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgresql import PostgresServer
from prefect_process import PrefectProcess, prefect_process

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
COMMAND = ("generate", "collaborative", "--name", "x", "--count", "60", "--model", "scripted/write", "--json")


def understudy(server: PrefectProcess, folder: Path, **environment: str) -> dict:
    """Run the command in a new home; return its report."""
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *COMMAND],
        env={**server.environment, "UNDERSTUDY_HOME": str(folder / "home"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def test_generation_runs_on_postgresql_throughout(postgresql: PostgresServer, tmp_path: Path) -> None:
    tables, prefects = postgresql.new_database(), postgresql.new_database(driver="asyncpg")
    with prefect_process(tmp_path, {"PREFECT_API_DATABASE_CONNECTION_URL": prefects}) as server:
        report = understudy(server, tmp_path, UNDERSTUDY_DATABASE_URL=tables)
        again = understudy(server, tmp_path, UNDERSTUDY_DATABASE_URL=tables)
        completed = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        assert server.count("/task_runs/count", completed) == server.count("/task_runs/count")
    assert again == report
    assert (report["accepted"], report["dropped"], report["failed"]) == (60, 0, 0)
    counts = {"calls": 180, "drafts": 180, "examples": 60}
    for table, count in counts.items():
        assert postgresql.query(tables, f"SELECT count(*) FROM {table}") == [(count,)]
    runs = "SELECT count(*) FROM task_run WHERE name LIKE '{}[%' AND state_type = 'COMPLETED'"
    for stage in ("idea", "document", "response"):
        assert postgresql.query(prefects, runs.format(stage)) == [(3,)]
    assert len(Path(report["examples"]).read_text().splitlines()) == 60
