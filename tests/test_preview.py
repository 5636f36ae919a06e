"""The preview as a person meets it: examples, answers, guidance, and then the run, nothing paid twice."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.prefect


def test_a_preview_is_refined_and_the_run_finds_its_calls_in_the_ledger(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    given = {
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parent / "plugins"),
        "SCRIPTED_CALLS": str(calls),
    }
    command = ["generate", "collaborative", "--count", "2", "--model", "scripted/write", "--preview"]
    answers = ["y", "n", "Name a date.", "", "y", "y", "", "y"]
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *command],
        input="\n".join(answers) + "\n",
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            **given,
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "1 of 2 are good." in result.stdout
    assert "2 of 2 examples accepted" in result.stdout
    assert len(calls.read_text().split()) == 2 * 6
    with sqlite3.connect(tmp_path / "home" / "understudy.db") as database:
        (examples,) = database.execute("SELECT count(*) FROM examples").fetchone()
        asked = [request for (request,) in database.execute("SELECT request FROM calls")]
    assert examples == 2
    assert sum("Mind this too: Name a date." in request for request in asked) == 6
    ratings = sorted((tmp_path / "home" / "objects" / "runs").glob("*-preview-*/ratings.jsonl"))
    notes = [json.loads(line)["note"] for path in ratings for line in path.read_text().splitlines()]
    assert sorted(notes) == ["", "", "", "Name a date."]


def test_nobody_to_answer_ends_the_preview(tmp_path: Path) -> None:
    given = {"UNDERSTUDY_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parent / "plugins")}
    command = ["generate", "collaborative", "--count", "1", "--model", "scripted/write", "--preview"]
    result = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *command],
        stdin=subprocess.DEVNULL,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
            **given,
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert result.returncode == 130
    assert "stopped" in result.stderr
