"""The command line as a person meets it: fast help, one line of error with a remedy, JSON for scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (
    "demo",
    "diff",
    "evaluate",
    "finetune",
    "generate",
    "personas",
    "pipeline",
    "promote",
    "serve",
    "simulate",
    "status",
    "versions",
    "watch",
)


@pytest.fixture
def understudy(tmp_path: Path):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        "UNDERSTUDY_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parent / "plugins"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=240,
            check=False,
        )

    return run


def test_help_names_every_command(understudy) -> None:
    result = understudy("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["simulate", "--plan", "huge"], 2, ["'huge'", "focused-2000"]),
        (["simulate", "--total", "0"], 2, ["total", "0"]),
        (["simulate", "--base-model", "smollm2"], 2, ["'smollm2'", "provider/name"]),
        (["generate", "nobody"], 2, ["'nobody'", "jamie"]),
        (["generate", "jamie", "--preview", "--json"], 2, ["--preview", "--guidance"]),
        (["card", "nothing"], 2, ["'nothing'", "neither a run nor a dataset"]),
        (["pairs", "jamie"], 2, ["no constitution", "--run"]),
        (["pairs", "jamie", "--run", "nothing"], 2, ["'nothing'", "understudy generate jamie"]),
        (["generate", "jamie", "--count", "0"], 2, ["count", "0"]),
        (["generate", "jamie", "--model", "smollm2"], 2, ["'smollm2'", "provider/name"]),
        (["generate", "jamie", "--model", "nobody/x"], 2, ["'nobody'", "local"]),
        (["generate", "jamie", "--name", "Not A Slug"], 2, ["name", "Not A Slug"]),
        (["finetune", "jamie", "--epochs", "0"], 2, ["epochs"]),
        (["finetune", "jamie", "--learning-rate", "7"], 2, ["learning_rate", "7"]),
        (["finetune", "jamie", "--backend", "moon"], 2, ["'moon'", "local"]),
        (["evaluate", "jamie"], 2, ["no completed job", "understudy finetune jamie"]),
        (["promote", "jamie"], 2, ["no evaluation", "understudy evaluate jamie"]),
        (["diff", "jamie-9.9.9"], 2, ["'jamie-9.9.9'", "none yet"]),
        (["diff", "jamie-0.1.0", "--questions", "-1"], 2, ["--questions", "-1"]),
        (["watch", "job-9"], 2, ["'job-9'", "understudy status"]),
        (["status", "job-9"], 2, ["'job-9'"]),
        (["nonsense"], 2, ["nonsense", "--help"]),
    ],
)
def test_bad_input_is_one_line_with_the_value_and_the_remedy(understudy, arguments, code, words) -> None:
    result = understudy(*arguments)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)


def test_a_malformed_persona_is_named_by_file_line_and_field(understudy, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ndisplay_name: Mine\ndescription: x\nagent_type: wizard\nsystem_prompt: You are Mine.\n"
        "traits:\n  - {name: Kind, description: is kind}\n"
    )
    result = understudy("personas", str(file))
    assert result.returncode == 2
    assert "mine.yaml:4" in result.stderr
    assert "agent_type" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unwritable_home_is_an_error_that_names_the_remedy(understudy, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    result = understudy("versions")
    assert result.returncode == 1
    assert "UNDERSTUDY_HOME" in result.stderr


def test_lists_are_empty_and_say_what_to_do(understudy) -> None:
    assert "understudy pipeline" in understudy("versions").stdout
    assert "understudy finetune" in understudy("status").stdout
    assert json.loads(understudy("versions", "--json").stdout) == []


def test_personas_are_listed_and_shown_as_the_yaml_that_defines_them(understudy, tmp_path: Path) -> None:
    names = {row["name"] for row in json.loads(understudy("personas", "--json").stdout)}
    assert {"collaborative", "jamie", "manager", "developer", "client", "hr"} <= names
    assert len(names) == 14
    shown = understudy("personas", "jamie")
    (tmp_path / "copy.yaml").write_text(shown.stdout)
    assert understudy("personas", str(tmp_path / "copy.yaml")).stdout == shown.stdout


@pytest.mark.prefect
def test_generate_from_the_command_line_embedded(understudy) -> None:
    arguments = ["generate", "collaborative", "--count", "2", "--model", "scripted/write", "--json"]
    result = understudy(*arguments)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["accepted"] == 2
    assert Path(report["examples"]).exists()


def test_simulate_shows_a_plan_without_writing_anything(understudy, tmp_path: Path) -> None:
    result = understudy("simulate", "--plan", "full-2500", "--total", "250", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert sum(cell["requested"] for cell in shown["cells"]) == 250
    assert sum(cell["moved"] for cell in shown["cells"]) == 0
    assert shown["training"]["low"] < shown["training"]["high"]
    assert not (tmp_path / "home" / "understudy.db").exists()


def test_a_database_url_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.cli", "versions"]
    given = {"UNDERSTUDY_HOME": str(tmp_path), "UNDERSTUDY_DATABASE_URL": "nonsense"}
    result = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "UNDERSTUDY_DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr
