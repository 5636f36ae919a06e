"""Measures generation against its peers: the same three stages for everybody, at the same stand-in.

    python tests/benchmarks/generation/bench_peers.py --install FOLDER
    python tests/benchmarks/generation/bench_peers.py --environments FOLDER [--rows 200] [--rounds 3]
        [--only understudy litellm ...] [--scenarios plain faults ...] [--save results.jsonl]
    python tests/benchmarks/generation/bench_peers.py --tables results.jsonl

A row is an idea, a document from the idea and a response from the document: three calls, 600 for 200 rows, 16
at once, each answered after 0.2 ± 0.1 s. Ours is the real command, with its ledger and with a Prefect server
that runs already. Every run is a fresh process with a fresh home and a fresh stand-in; runs alternate between
the contenders, and the table has the medians. A peer whose environment is not there is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from contenders import CONTENDERS, OURS, Asked, Contender, install
from measuring import Figures, Outcome, run_process

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "plugins"))
STAGES = 3
PACE = {"latency": 0.2, "jitter": 0.1}
SERVER = {  # as `make server` has it
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
COLUMNS = "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |"
HEADS = (
    "first to last call",
    "whole process",
    "start to first call",
    "CPU",
    "calls",
    "beyond 3 a row",
    "rejected",
    "failed",
    "peak",
    "rows",
)


@dataclass(frozen=True)
class Scenario:
    """What is made difficult: the stand-in's faults, and what is run one after the other in one home."""

    name: str
    what: str
    faults: dict[str, float] = field(default_factory=dict)
    steps: tuple[dict[str, Any], ...] = ({},)
    kill: bool = False
    ours_only: bool = False


SCENARIOS = (
    Scenario("plain", "nothing in the way"),
    Scenario("faults", "10 % of the calls end with HTTP 500", {"errors": 0.1}),
    Scenario("limit", "40 requests a second, the rest 429 with Retry-After", {"limit": 40}),
    Scenario("kill", "kill -9 at half of the calls, then again to the end", steps=({}, {}), kill=True),
    Scenario("truncated", "10 % of the answers are JSON that breaks off", {"truncated": 0.1}),
    Scenario("duplicates", "every first prompt twice; ours: the whole run a second time", steps=({},)),
    Scenario("changed", "again with another prompt in the last stage", steps=({}, {"changed": True})),
    Scenario("dead", "the first provider of the chain breaks every connection off", ours_only=True),
)


def steps_of(contender: Contender, scenario: Scenario, options: argparse.Namespace) -> list[Asked]:
    """Return the runs of a scenario."""
    plain = Asked(options.rows, options.concurrency)
    if scenario.name == "dead":
        return [replace(plain, fallback=True)]
    if scenario.name == "duplicates":
        twice = [plain, replace(plain, again=True)]
        return twice if contender.name == OURS else [replace(plain, distinct=options.rows // 2)]
    return [replace(plain, **step) for step in scenario.steps]


def measure(contender: Contender, scenario: Scenario, options: argparse.Namespace) -> Figures:
    """Run the steps of a scenario in one fresh folder and return the figures of all of them."""
    from openai_server import openai_server

    python = contender.python(options.environments)
    assert python is not None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(openai_server())
        server.set(**PACE, **scenario.faults)
        more = {"HOME": str(options.homes / contender.name)}
        Path(more["HOME"]).mkdir(exist_ok=True)
        spent = [0.0, 0.0]
        if contender.name == OURS:
            more |= stack.enter_context(prefect_of(folder, spent))
            gone = stack.enter_context(openai_server())
            gone.set(dead=True)
            more |= {"GROQ_API_BASE": f"{gone.url}/v1", "GROQ_API_KEY": "none"}
        half = STAGES * options.rows // 2
        outcomes = []
        steps = steps_of(contender, scenario, options)
        for number, asked in enumerate(steps):
            killed = scenario.kill and number == 0
            outcomes.append(
                run_process(
                    contender.command(python, asked, folder),
                    contender.environment(asked, folder, server.url, more),
                    folder,
                    limit=options.give_up,
                    done=lambda: killed and server.counts()["calls"] >= half,  # noqa: B023
                )
            )
        counts = server.counts()
    return figures(outcomes, counts, STAGES * options.rows, spent[1] - spent[0])


def figures(outcomes: Sequence[Outcome], counts: dict[str, Any], paid: int, prefect: float) -> Figures:
    """Put together what the processes and the stand-in tell."""
    problems = [outcome.problem for outcome in outcomes if outcome.problem not in ("", "killed")]
    return Figures(
        seconds=counts["ended_at"] - counts["first_at"],
        wall=sum(outcome.wall for outcome in outcomes),
        first=counts["first_at"] - outcomes[0].began,
        cpu=sum(outcome.cpu for outcome in outcomes),
        more=counts["calls"] - paid,
        rows=outcomes[-1].rows,
        prefect_cpu=prefect,
        problem="; ".join(problems),
        **{name: counts[name] for name in ("calls", "rejected", "failed", "repeated", "peak")},
    )


@contextmanager
def prefect_of(folder: Path, spent: list[float]) -> Iterator[dict[str, str]]:
    """Have a Prefect server that runs already; `spent` gets its CPU seconds before and after."""
    import psutil
    from prefect_process import prefect_process

    with prefect_process(folder, SERVER) as server:
        process = psutil.Process(server.process.pid)

        def used() -> float:
            whole = [process, *process.children(recursive=True)]
            return sum(sum(one.cpu_times()[:2]) for one in whole)

        spent[0] = used()
        yield {name: value for name, value in server.environment.items() if name.startswith("PREFECT_")}
        spent[1] = used()


def line(name: str, runs: Sequence[Figures]) -> str:
    """Return a contender's line of a scenario's table: the median of every figure, the range of the rows."""

    def middle(field: str) -> float:
        return median(getattr(run, field) for run in runs)

    seconds = [f"{middle(field):.1f} s" for field in ("seconds", "wall", "first", "cpu")]
    if name == OURS:
        seconds[-1] += f" + {middle('prefect_cpu'):.1f} s Prefect server"
    whole = [f"{middle(field):.0f}" for field in ("calls", "more", "rejected", "failed", "peak")]
    rows = sorted({run.rows for run in runs})
    problems = sorted({run.problem for run in runs if run.problem})
    told = "–".join(map(str, (rows[0], rows[-1]) if len(rows) > 1 else rows))
    told += f" ({problems[0].splitlines()[-1][:80]})" if problems else ""
    return COLUMNS.format(name, *seconds, *whole, told)


def table(scenario: Scenario, found: dict[str, list[Figures]]) -> str:
    """Return the Markdown table of a scenario."""
    heads = [f"**{scenario.name}**: {scenario.what}", "", COLUMNS.format("", *HEADS)]
    return "\n".join([*heads, "|---" * (len(HEADS) + 1) + "|", *(line(*item) for item in found.items()), ""])


def compare(scenario: Scenario, contenders: Sequence[Contender], options: argparse.Namespace) -> None:
    """Measure a scenario, in rounds that take the contenders by turns, and print its table."""
    found: dict[str, list[Figures]] = {}
    for number in range(options.rounds):
        for contender in contenders:
            if scenario.ours_only and contender.name != OURS:
                continue
            run = measure(contender, scenario, options)
            found.setdefault(contender.name, []).append(run)
            load = round(os.getloadavg()[0], 1)
            told = {"scenario": scenario.name, "round": number, "name": contender.name, "load": load}
            print(json.dumps(told | {"figures": asdict(run)}), file=sys.stderr, flush=True)
            if options.save:
                with options.save.open("a") as file:
                    file.write(json.dumps(told | {"figures": asdict(run)}) + "\n")
    print(table(scenario, found), flush=True)


def show(saved: Path) -> None:
    """Print the tables of saved runs."""
    runs = [json.loads(text) for text in saved.read_text().splitlines()]
    loads = [run["load"] for run in runs]
    print(f"load average {min(loads)} to {max(loads)} after the runs\n")
    for scenario in SCENARIOS:
        found: dict[str, list[Figures]] = {}
        for run in runs:
            if run["scenario"] == scenario.name:
                found.setdefault(run["name"], []).append(Figures(**run["figures"]))
        if found:
            print(table(scenario, found))


def main() -> None:
    """Read the options and measure each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--install", type=Path, metavar="FOLDER", help="make the peers' environments there")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", help="where they are")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--give-up", type=float, default=150, help="seconds after which a run is given up")
    parser.add_argument("--only", nargs="+", choices=[contender.name for contender in CONTENDERS])
    parser.add_argument("--scenarios", nargs="+", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--save", type=Path, help="a file that gets every run as a line of JSON")
    parser.add_argument("--tables", type=Path, help="print the tables of saved runs, and measure nothing")
    options = parser.parse_args()
    if options.tables:
        show(options.tables)
        return
    if options.install:
        install(options.install)
        return
    chosen = [one for one in CONTENDERS if not options.only or one.name in options.only]
    there = [one for one in chosen if one.python(options.environments)]
    for missing in (one for one in chosen if one not in there):
        print(f"{missing.name} is left out: no environment of it under {options.environments}.\n")
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as homes:
        options.homes = Path(homes)
        for scenario in SCENARIOS:
            if not options.scenarios or scenario.name in options.scenarios:
                compare(scenario, there, options)


if __name__ == "__main__":
    main()
