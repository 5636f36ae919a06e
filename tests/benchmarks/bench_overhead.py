"""Measures what the pipeline costs over its model calls: the generate flow against the bare calls.

    python tests/benchmarks/bench_overhead.py [--quick] [--latency 0.2 1.0] [--calls 600 5000]
        [--concurrency 16 64] [--servers embedded process] [--database URL]

The model is a mock that answers after a fixed latency. A third of the calls writes ideas, a third
documents, a third responses. The ideal is the calls divided by the concurrency, rounded up to whole rounds,
times the latency: as if no text needed the one before. `bare` makes the same calls with asyncio.gather and a
semaphore and nothing else. `flow` is the time inside the flow as Prefect records it, from Running to
Completed, with everything that it does: prompts, checks, ledger, rows, task runs, artifacts, export; `whole`
adds what Prefect needs to begin and end a flow run, from the call to the return. Every cell is a fresh
process and a fresh home; a run of one example comes first, so that what is loaded once in a process is not
counted. `task runs` counts what the Prefect server has recorded as completed against the shards there were.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parent.parent / "plugins"
sys.path.insert(0, str(PLUGINS))
STAGES = ("idea/1", "document/1", "response/1")
TARGETS = {0.2: 0.10, 1.0: 0.03}
COLUMNS = "{:>8} {:>6} {:>5} {:9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>10}  {}"


@dataclass(frozen=True)
class Cell:
    """One combination to measure."""

    latency: float
    calls: int
    concurrency: int
    server: str


def measure_here(latency: float, calls: int) -> dict[str, Any]:
    """Measure one cell in this process: the flow, then the same calls bare."""
    from deployments.launch import embed, prefect_server
    from tasks.storage.settings import Settings

    settings = Settings()
    embed(settings)
    with prefect_server(settings):
        from flows.generate import generate
        from tasks.policies import FallbackChain
        from tasks.specs import GenerateSpec

        def spec(name: str, model: str, count: int) -> GenerateSpec:
            chain = FallbackChain.of([model])
            words = {"document_words": 200, "response_words": 160}
            fields = {"name": name, "persona": "collaborative", "count": count}
            return GenerateSpec(**fields, **words, writers=chain, actors=chain)

        async def story() -> tuple[float, float, Any, dict[str, float]]:
            from deployments.launch import drain

            await generate(spec("warm-up", "scripted/write", 1))
            await drain()
            before = await recorded()
            start, cpu = time.perf_counter(), time.process_time()
            report = await generate(spec("bench", f"scripted/slow-{latency}", math.ceil(calls / len(STAGES))))
            taken, used = time.perf_counter() - start, time.process_time() - cpu
            await drain()
            runs = {name: count - before[name] for name, count in (await recorded()).items()}
            return taken, used, report, {**runs, "flow": await flow_seconds("bench")}

        taken, used, report, seen = asyncio.run(story())
    requests = made_requests()
    bound = settings.concurrent_calls
    return {
        "calls": len(requests),
        "ideal": math.ceil(len(requests) / bound) * latency,
        "bare": asyncio.run(bare_seconds(latency, requests, bound)),
        "whole": taken,
        "cpu": used,
        "accepted": report.accepted,
        "requested": report.requested,
        **seen,
    }


async def recorded() -> dict[str, int]:
    """Return how many shards the server has, and how many of them as completed."""
    from prefect.client.orchestration import get_client

    done = {"type": {"any_": ["COMPLETED"]}}
    found = {"task_runs": 0, "completed": 0}
    async with get_client() as client:
        for stage in STAGES:
            shards: dict[str, Any] = {"name": {"like_": f"{stage.split('/')[0]}["}}
            for kind, asked in {"task_runs": shards, "completed": {**shards, "state": done}}.items():
                answer = await client.request("POST", "/task_runs/count", json={"task_runs": asked})
                found[kind] += answer.json()
    return found


async def flow_seconds(name: str) -> float:
    """Return how long the flow of a run took, as the server has it."""
    from prefect.client.orchestration import get_client

    asked = {"flow_runs": {"name": {"any_": [f"generate-{name}"]}}}
    async with get_client() as client:
        (run,) = (await client.request("POST", "/flow_runs/filter", json=asked)).json()
    return float(run["total_run_time"])


def made_requests() -> list[str]:
    """Return the requests of every call that the flow made."""
    from sqlmodel import select

    from tasks.storage.store import open_store
    from tasks.storage.tables import Call

    with open_store().session() as session:
        return list(session.exec(select(Call.request).where(Call.model != "scripted/write")))


async def bare_seconds(latency: float, made: Sequence[str], concurrency: int) -> float:
    """Return how long the calls take with nothing around them."""
    from scripted_model import ScriptedModel

    from agents.chat import ChatRequest, ModelAddress

    model = ScriptedModel(ModelAddress("scripted", f"slow-{latency}"))
    requests = list(map(ChatRequest.model_validate_json, made))
    slots = asyncio.Semaphore(concurrency)

    async def call(request: ChatRequest) -> None:
        async with slots:
            await model.complete(request)

    start = time.perf_counter()
    await asyncio.gather(*map(call, requests))
    return time.perf_counter() - start


def measure(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one cell in a fresh process and home."""
    with tempfile.TemporaryDirectory() as folder, prefect_of(cell, Path(folder)) as environment:
        command = [sys.executable, __file__, "--cell", str(cell.latency), str(cell.calls)]
        environment = {
            **environment,
            "UNDERSTUDY_HOME": f"{folder}/home",
            "UNDERSTUDY_CONCURRENT_CALLS": str(cell.concurrency),
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # as the command line has it
        }
        if options.database:
            environment["UNDERSTUDY_DATABASE_URL"] = options.database
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(result.stdout.splitlines()[-1])


@contextmanager
def prefect_of(cell: Cell, folder: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a cell: with a server started for it, or without one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if cell.server == "embedded":
        yield clean
        return
    from prefect_process import prefect_process

    with prefect_process(folder) as server:
        yield {**clean, **server.environment}


def row(cell: Cell, found: dict[str, Any]) -> tuple[str, bool]:
    """Return a cell's line of the table, and whether it reached the target."""
    over = found["flow"] / found["ideal"] - 1
    within = over <= TARGETS.get(cell.latency, math.inf)
    everything = found["completed"] == found["task_runs"] == shards(found["requested"])
    whole = found["accepted"] == found["requested"]
    verdict = [] if within else [f"misses {TARGETS[cell.latency]:.0%}"]
    verdict += [] if everything else ["task runs are missing"]
    verdict += [] if whole else [f"{found['accepted']} of {found['requested']} accepted"]
    line = COLUMNS.format(
        f"{cell.latency} s",
        found["calls"],
        cell.concurrency,
        cell.server,
        f"{found['ideal']:.2f} s",
        f"{found['bare']:.2f} s",
        f"{found['flow']:.2f} s",
        f"{found['whole']:.2f} s",
        f"{over:+.1%}",
        f"{found['whole'] / found['ideal'] - 1:+.1%}",
        f"{1000 * found['cpu'] / found['calls']:.2f} ms",
        f"{found['completed']}/{shards(found['requested'])} {', '.join(verdict)}",
    )
    return line.rstrip(), within and everything and whole


def shards(count: int) -> int:
    """Return how many shards three stages of so many positions are."""
    from tasks.policies import SHARD

    return len(STAGES) * math.ceil(count / SHARD)


def main() -> None:
    """Read the options and measure each cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="600 calls only: about three minutes")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.2, 1.0], help="seconds of a call")
    parser.add_argument("--calls", type=int, nargs="+", default=[600, 5000])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--servers", nargs="+", default=["embedded", "process"])
    parser.add_argument("--database", help="an empty PostgreSQL database for our tables, for a single cell")
    parser.add_argument("--cell", nargs=2, metavar=("LATENCY", "CALLS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measure_here(float(options.cell[0]), int(options.cell[1]))))
        return
    counts = [count for count in options.calls if count <= 600] if options.quick else options.calls
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    names = ("latency", "calls", "at once", "server", "ideal", "bare", "flow", "whole")
    print(COLUMNS.format(*names, "flow over", "whole ov.", "CPU/call", "task runs"))
    reached = []
    for latency in options.latency:
        for calls in counts:
            for concurrency in options.concurrency:
                for server in options.servers:
                    cell = Cell(latency, calls, concurrency, server)
                    line, good = row(cell, measure(cell, options))
                    reached.append(good)
                    print(line, flush=True)
    print(f"{sum(reached)} of {len(reached)} cells reach the target and have every task run recorded")


if __name__ == "__main__":
    main()
