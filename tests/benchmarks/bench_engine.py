"""Measures the in-process engine: a batch against one after the other, and mixed adapters against none.

    python tests/benchmarks/bench_engine.py [--requests 16] [--tokens 64] [--adapters 4] [--rounds 3]

Each round measures everything in turn, so that the ratios hold on a machine that others use too; the
median of each figure is reported. Prompts share a system prompt of about 120 tokens.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from agents.chat import ChatAnswer, ChatRequest, ModelAddress, Sampling
from agents.local.checkpoints import prepare_checkpoint
from agents.local.engine import Engine
from agents.local.lora import CONFIG_FILE, WEIGHTS_FILE
from agents.local.model import LocalModel
from agents.schemas import Messages, chat

SYSTEM = "You are a patient colleague who answers questions about the running of a small museum. " * 8
RANK = 16


def write_random_adapter(engine: Engine, folder: Path, seed: int) -> Path:
    """Write an adapter on every linear layer, with weights small enough to leave the model its language."""
    folder.mkdir()
    torch.manual_seed(seed)
    tensors = {}
    for layer, (out_size, in_size) in engine.layers.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(RANK, in_size) * 0.02
        tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out_size, RANK) * 0.002
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return folder


def prompt(number: int, part: str) -> Messages:
    """Return a prompt of its own, so that only the system prompt can be read once for all."""
    return chat(
        ("system", SYSTEM), ("user", f"{part}: please tell visitor {number} a long story about a room.")
    )


async def one_by_one(models: Sequence[LocalModel], requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
    """Answer the requests one after the other."""
    return [await models[i % len(models)].complete(request) for i, request in enumerate(requests)]


async def at_once(models: Sequence[LocalModel], requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
    """Answer the requests together."""
    answers = (models[i % len(models)].complete(request) for i, request in enumerate(requests))
    return list(await asyncio.gather(*answers))


Ask = Callable[[Sequence[LocalModel], Sequence[ChatRequest]], Awaitable[list[ChatAnswer]]]


async def speed(ask: Ask, models: Sequence[LocalModel], count: int, tokens: int, part: str) -> float:
    """Return the tokens written in a second, prompts and all."""
    sampling = Sampling(temperature=0.8, seed=1, max_tokens=tokens)
    requests = [ChatRequest(messages=prompt(number, part), sampling=sampling) for number in range(count)]
    start = time.perf_counter()
    answers = await ask(models, requests)
    return sum(answer.usage.completion_tokens for answer in answers) / (time.perf_counter() - start)


async def measure(engine: Engine, adapters: Sequence[Path], options: argparse.Namespace) -> None:
    """Run the rounds and print the medians."""
    address = ModelAddress("local", "smollm2-135m")
    base = [LocalModel(address, engine)]
    mixed = [LocalModel(address, engine, engine.adapter(folder)) for folder in adapters]
    one = mixed[:1]
    kinds: dict[str, tuple[Ask, Sequence[LocalModel], int]] = {
        "base, one by one": (one_by_one, base, max(2, options.requests // 4)),
        f"base, {options.requests} at once": (at_once, base, options.requests),
        f"one adapter, {options.requests} at once": (at_once, one, options.requests),
        f"{len(mixed)} adapters, {options.requests} at once": (at_once, mixed, options.requests),
        f"{len(mixed)} adapters, one by one": (one_by_one, mixed, max(len(mixed), options.requests // 4)),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    await speed(at_once, [*base, *mixed], options.requests, 4, "warm-up")
    for number in range(options.rounds):
        for name, (ask, models, count) in kinds.items():
            found[name].append(await speed(ask, models, count, options.tokens, f"round {number}, {name}"))
    medians = [statistics.median(figures) for figures in found.values()]
    for name, median, figures in zip(found, medians, found.values(), strict=True):
        print(f"{name:32} {median:7.1f} tok/s   {' '.join(f'{f:.0f}' for f in figures)}")
    alone, batch, single, many, many_alone = medians
    print(f"a batch against one by one:           {batch / alone:.2f} times")
    print(f"mixed adapters against one by one:    {many / many_alone:.2f} times")
    print(f"one adapter costs against none:       {1 - single / batch:.1%}")
    print(f"mixed adapters cost against none:     {1 - many / batch:.1%}")


def main() -> None:
    """Read the options, open the engine and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(".understudy/models"))
    options = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    engine = Engine(prepare_checkpoint("smollm2-135m", options.cache))
    with tempfile.TemporaryDirectory() as place:
        folders = [write_random_adapter(engine, Path(place) / f"a{i}", i) for i in range(options.adapters)]
        asyncio.run(measure(engine, folders, options))
    engine.close()


if __name__ == "__main__":
    main()
