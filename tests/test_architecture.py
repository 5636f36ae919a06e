"""The house rules, read off the code: who imports whom, who owns what, how large things are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("agents", "tasks", "flows", "deployments")
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
MIGRATIONS = "tasks/storage/migrations"
OWNERS = {
    "litellm": ("agents/remote.py",),
    "torch": ("agents/local/", "tasks/training/"),
    "transformers": ("agents/local/", "tasks/training/"),
    "safetensors": ("agents/local/", "tasks/training/"),
    "peft": ("tasks/training/lora.py",),
    "gguf": ("agents/local/",),
    "scipy": ("tasks/evaluation/intervals.py",),
    "sqlmodel": ("tasks/storage/",),
    "sqlalchemy": ("tasks/storage/",),
    "alembic": ("tasks/storage/",),
    "psycopg": ("tasks/storage/",),
    "prefect_dask": ("flows/fanout.py",),
    "prefect_ray": ("flows/fanout.py",),
    "pydantic_settings": ("tasks/storage/settings.py",),
    "fastapi": ("deployments/service/",),
    "starlette": ("deployments/service/",),
    "uvicorn": ("deployments/service/",),
    "typer": ("deployments/cli/",),
    "jinja2": ("agents/prompts/",),
}
PREFECT_FREE = (
    "agents/",
    "tasks/storage/",
    "tasks/training/",
    "tasks/evaluation/",
    "tasks/comparison/",
    "tasks/sources/",
    "tasks/models.py",
    "tasks/cast.py",
    "tasks/retrain.py",
    "tasks/specs.py",
    "tasks/progress.py",
    "deployments/service/",
    "deployments/catalog.py",
)
BANNED_NAMES = {"utils", "helpers", "common", "misc"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(node: ast.AST, *, typing_only: bool = False) -> Iterator[str]:
    """Yield every imported module, also inside functions; typing-only blocks when asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            if typing_only:
                yield from imports(child, typing_only=True)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child, typing_only=typing_only)


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(ast.Module(body=[node], type_ignores=[]))


TREES = {path: ast.parse(path.read_text()) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    above = {
        name for name in imports(TREES[path], typing_only=True) if name.split(".")[0] in LAYERS[layer + 1 :]
    }
    assert not above


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_heavy_packages_have_one_owner(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(TREES[path])}
    strangers = {
        package
        for package, owners in OWNERS.items()
        if package in used and not relative(path).startswith(owners)
    }
    assert not strangers


@pytest.mark.parametrize(
    "path", [path for path in FILES if relative(path).startswith(PREFECT_FREE)], ids=relative
)
def test_nouns_do_not_know_prefect(path: Path) -> None:
    assert "prefect" not in {name.split(".")[0] for name in imports(TREES[path], typing_only=True)}


def test_there_are_no_import_cycles() -> None:
    modules = {module_name(path): path for path in FILES}
    edges = {
        name: {target for target in top_level_imports(TREES[path]) if target in modules} - {name}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' → '.join((*trail, name))}"
        if name not in done:
            for target in edges[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())
    assert done == set(modules)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_names_and_sizes(path: Path) -> None:
    names = {path.stem, path.parent.name} - {"__init__"}
    assert not names & BANNED_NAMES
    assert path.stem not in {*OWNERS, "prefect"}
    assert path.stem not in LAYERS
    assert path.read_text().count("\n") <= 400
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(TREES[path])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > 60
        and MIGRATIONS not in relative(path)
    ]
    assert not long


@pytest.mark.parametrize("path", [path for path in FILES if MIGRATIONS not in relative(path)], ids=relative)
def test_importing_does_nothing(path: Path) -> None:
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
    )
    others = [
        node
        for node in TREES[path].body
        if not isinstance(node, allowed)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.If) and ast.unparse(node.test) in GUARDS)
    ]
    assert not [ast.unparse(node)[:80] for node in others]


GUARDS = {"TYPE_CHECKING", "__name__ == '__main__'"}


def test_every_module_says_what_it_is_and_what_it_does_not_know() -> None:
    silent = [
        relative(path)
        for path in FILES
        if MIGRATIONS not in relative(path)
        and path.name != "__init__.py"
        and len((ast.get_docstring(TREES[path]) or "").splitlines()) < 3
    ]
    assert not silent


def test_the_command_line_starts_without_heavy_packages() -> None:
    heavy = ["torch", "transformers", "peft", "prefect", "sqlmodel", "fastapi", "scipy", "numpy"]
    code = f"import sys, deployments.cli.commands; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_top_level_holds_the_four_words_and_little_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    folders = {line.split("/")[0] for line in tracked.stdout.splitlines() if "/" in line}
    assert folders - {".ci"} == {*LAYERS, "tests"}
