"""The README tells the truth: its tree is the repository, its commands exist, its model names parse."""

import re
from pathlib import Path

import pytest
import yaml

from agents.chat import parse_address
from deployments.cli.commands import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LAYERS = ("agents", "tasks", "flows", "deployments")


def tree() -> set[str]:
    """Return the paths of the annotated tree, relative to the root."""
    block = next(part for part in README.split("```") if part.strip().startswith("agents/  "))
    paths: set[str] = set()
    folder = ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else name
        paths.add(name if not line.startswith(" ") else folder + name)
    return paths


def test_the_tree_names_what_is_there_and_nothing_else() -> None:
    there = {f"{layer}/" for layer in LAYERS} | {"tests/"}
    for layer in LAYERS:
        for path in (ROOT / layer).iterdir():
            if path.suffix == ".py" and path.name != "__init__.py":
                there.add(f"{layer}/{path.name}")
            elif path.is_dir() and (path / "__init__.py").exists():
                there.add(f"{layer}/{path.name}/")
    assert tree() == there


def test_the_commands_of_the_readme_are_the_commands_there_are() -> None:
    named = set(re.findall(r"^\| `understudy (\w+)", README, flags=re.MULTILINE))
    assert named == {command.callback.__name__ for command in app.registered_commands}


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("address", sorted(set(re.findall(r"`(local/[^`]+)`", README))))
def test_the_model_addresses_of_the_readme_parse(address: str) -> None:
    assert str(parse_address(address)) == address


def test_the_files_to_change_exist() -> None:
    table = README.split("## What you are likely to change")[1].split("##")[0]
    for path in re.findall(r"`((?:agents|tasks|flows|deployments)/[\w/.]+)`", table):
        assert (ROOT / path).exists(), path


def test_every_deployment_names_a_flow_that_exists() -> None:
    from importlib import import_module

    from prefect import Flow

    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert isinstance(getattr(import_module(module), name), Flow), deployment["name"]


def test_the_plugin_groups_of_the_readme_are_declared() -> None:
    from typing import get_args

    from agents.plugins import Group

    assert set(re.findall(r"`understudy\.(\w+)`", README)) == set(get_args(Group))
