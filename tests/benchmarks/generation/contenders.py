"""Who writes the workload: Understudy's own command, litellm alone, four peers in environments of their own.

Does not know how a run is measured. A peer is the pinned package of the index; its workload script lies in
`peers/` and is run with the Python of its environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
OURS = "understudy"
WORDS = 120
OTHER_WORDS = 121  # another limit of tokens and another number in its prompt: a changed last stage
QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NEMO_TELEMETRY_ENABLED": "false",
    "TELEMETRY_ENABLED": "false",
}


@dataclass(frozen=True)
class Asked:
    """One run of a workload: rows, calls at once, and how it differs from the plain one."""

    rows: int
    concurrency: int
    distinct: int = 0
    again: bool = False
    changed: bool = False
    fallback: bool = False


@dataclass(frozen=True)
class Contender:
    """One that writes the workload; without packages it runs in the environment of this benchmark."""

    name: str
    packages: tuple[str, ...] = ()

    def python(self, environments: Path | None) -> Path | None:
        """Return the Python to run it with, None when its environment is not there."""
        if not self.packages:
            return Path(sys.executable)
        python = (environments or Path()) / self.name / "bin" / "python"
        return python.absolute() if environments and python.exists() else None

    def command(self, python: Path, asked: Asked, folder: Path) -> list[str]:
        """Return the command that writes the workload."""
        if self.name == OURS:
            return [str(python.parent / "understudy"), *_options(asked)]
        script = str(PEERS / f"with_{self.name}.py")
        amounts = ["--rows", str(asked.rows), "--concurrency", str(asked.concurrency)]
        if asked.distinct:
            amounts += ["--distinct", str(asked.distinct)]
        note = ["--note", "Begin with a greeting."] if asked.changed else []
        return [str(python), script, *amounts, "--folder", str(folder), *note]

    def environment(self, asked: Asked, folder: Path, url: str, more: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a run: the stand-in as the provider, nothing of the caller's set-up."""
        ours = ("PREFECT_", "UNDERSTUDY_", "OPENAI_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {
            **clean,
            **QUIET,
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "none",
            "UNDERSTUDY_HOME": str(folder / "home"),
            "UNDERSTUDY_CONCURRENT_CALLS": str(asked.concurrency),
            **more,
        }


CONTENDERS = (
    Contender(OURS),
    Contender("litellm"),
    Contender("data_designer", ("data-designer==0.9.6",)),
    Contender("curator", ("bespokelabs-curator==0.1.31",)),
    Contender("sdg_hub", ("sdg-hub==0.9.4",)),
    Contender("distilabel", ("distilabel[openai]==1.5.3", "requests")),
)


def install(folder: Path) -> None:
    """Make the environment of every peer in the folder, with pip."""
    for contender in CONTENDERS:
        if contender.packages:
            place = folder / contender.name
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q"]
            subprocess.run([*pip, *contender.packages], check=True)


def _options(asked: Asked) -> list[str]:
    """Return what is asked of our command; another name asks for the same prompts a second time."""
    models = ["--model", "groq/gone"] if asked.fallback else []
    last = OTHER_WORDS if asked.changed else WORDS
    name = "second" if asked.again or asked.changed else "first"
    words = ["--document-words", str(WORDS), "--response-words", str(last)]
    count = ["--count", str(asked.rows), "--name", name]
    return ["generate", "collaborative", *count, *models, "--model", "openai/mock", *words, "--json"]
