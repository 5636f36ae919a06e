"""Measures what a run of generation holds in memory as it grows, and how long its export takes.

    python tests/benchmarks/generation/bench_memory.py [--examples 1000 10000] [--full]

The model is a script that answers at once with distinct texts of about 350, 160 and 80 words. Every size is
a fresh process and a fresh home with the embedded Prefect server in a process of its own. `peak` is the
largest resident size of the process that runs the flow, `start` what it had before its first text, `growth`
the difference; `export` is one more export of the finished run, in the same process, from the rows to the
three files. `--full` adds 100,000 examples, which takes an hour or two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).parents[2] / "plugins"
sys.path.insert(0, str(PLUGINS))
COLUMNS = "{:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9}"


def measure_here(count: int) -> dict[str, Any]:
    """Write a run in this process and return what it took."""
    from deployments.launch import embed, prefect_server
    from tasks.storage.settings import Settings

    settings = Settings()
    embed(settings)
    with prefect_server(settings):
        from flows.generate import generate
        from tasks.export import export_run
        from tasks.policies import FallbackChain
        from tasks.specs import GenerateSpec

        def spec(name: str, examples: int) -> GenerateSpec:
            chain = FallbackChain.of(["scripted/write"])
            fields = {"name": name, "persona": "collaborative", "count": examples}
            return GenerateSpec(**fields, document_words=700, response_words=250, writers=chain, actors=chain)

        async def story() -> tuple[int, float, float, Any]:
            from deployments.launch import drain

            await generate(spec("warm-up", 1))
            before, start, cpu = peak(), time.perf_counter(), time.process_time()
            report = await generate(spec("bench", count))
            taken, used = time.perf_counter() - start, time.process_time() - cpu
            await drain()
            return before, taken, used, report

        before, taken, used, report = asyncio.run(story())
        most, start = peak(), time.perf_counter()
        export_run.fn(spec("bench", count))
        seconds = time.perf_counter() - start
    sizes = {"start": before, "peak": most, "after_export": peak()}
    return {"accepted": report.accepted, "seconds": taken, "cpu": used, "export": seconds, **sizes}


def peak() -> int:
    """Return the largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(count: int) -> dict[str, Any]:
    """Measure one size in a fresh process and home."""
    with tempfile.TemporaryDirectory() as folder:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment = {
            **clean,
            "UNDERSTUDY_HOME": f"{folder}/home",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        }
        command = [sys.executable, __file__, "--here", str(count)]
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--full", action="store_true", help="100,000 examples too")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here)))
        return
    print(
        COLUMNS.format(
            "examples", "accepted", "start MB", "peak MB", "growth MB", "seconds", "CPU", "export", "ex./s"
        )
    )
    for count in options.examples + [100_000] * options.full:
        found = measure(count)
        print(
            COLUMNS.format(
                count,
                found["accepted"],
                found["start"],
                found["peak"],
                max(found["peak"], found["after_export"]) - found["start"],
                f"{found['seconds']:.1f} s",
                f"{found['cpu']:.1f} s",
                f"{found['export']:.2f} s",
                f"{count / found['seconds']:.1f}",
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
