"""LoRA adapters: PEFT's files give PEFT's logits, mixed batches keep them apart, broken files are refused."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import write_tiny_checkpoint

from agents.chat import ChatRequest, ModelAddress, Sampling
from agents.errors import AdapterInvalid
from agents.local.engine import Engine
from agents.local.lora import CONFIG_FILE, WEIGHTS_FILE
from agents.local.model import LocalModel
from agents.local.tokens import encode_last_turn, encode_prompt
from agents.schemas import chat

pytestmark = pytest.mark.filterwarnings(  # PEFT asks for it; we do not train here
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [chat(("user", "word " * count)) for count in (2, 25, 7, 80, 1, 13)]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ALL},
    "narrow": {"r": 2, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 8, "lora_alpha": 4, "target_modules": ALL, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": r".*\.(down_proj|q_proj)",
        "rank_pattern": {"down_proj": 6, "layers.0.self_attn.q_proj": 3},
        "alpha_pattern": {"q_proj": 5},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: write_adapter(folder, tmp_path_factory.mktemp(name), seed=seed, **kind)
        for seed, (name, kind) in enumerate(KINDS.items())
    }


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    engine = Engine(folder, torch.float32)
    yield engine
    engine.close()


def write_adapter(base: Path, folder: Path, *, seed: int, **kind: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", **kind)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def open_adapter(engine: Engine, path: Path | None) -> LocalModel:
    adapter = engine.adapter(path) if path else None
    return LocalModel(ModelAddress("local", "tiny", path.name if path else None), engine, adapter)


def ask(prompt: Any) -> ChatRequest:
    return ChatRequest(messages=prompt, sampling=Sampling(temperature=0, max_tokens=30))


@pytest.mark.parametrize("name", KINDS)
async def test_scores_and_words_are_pefts(
    name: str, engine: Engine, folder: Path, adapters: dict[str, Path]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapters[name]).eval()
    model = open_adapter(engine, adapters[name])
    talk = (*PROMPTS[1], *chat(("assistant", "every token of this answer is compared")))
    ids, first = encode_last_turn(engine.tokenizer, talk)
    prompt = torch.tensor([encode_prompt(engine.tokenizer, PROMPTS[1])])
    with torch.inference_mode():
        logs = peft(torch.tensor([ids])).logits[0].log_softmax(-1)
        words = peft.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=30
        )
    expected = [logs[at - 1, ids[at]].item() for at in range(first, len(ids))]
    text = engine.tokenizer.decode(words[0, prompt.shape[1] :], skip_special_tokens=True)
    base = (await open_adapter(engine, None).score(talk)).log_probabilities
    assert (await model.score(talk)).log_probabilities == pytest.approx(expected, abs=2e-4)
    assert base != pytest.approx(expected, abs=0.1)
    assert (await model.complete(ask(PROMPTS[1]))).text == text.rstrip("�")


async def test_in_a_mixed_batch_everyone_answers_as_alone(engine: Engine, adapters: dict[str, Path]) -> None:
    models = [open_adapter(engine, path) for path in (None, *adapters.values())]
    pairs = [(model, ask(prompt)) for prompt in PROMPTS for model in models]
    alone = [(await model.complete(request)).text for model, request in pairs]
    together = await asyncio.gather(*(model.complete(request) for model, request in pairs))
    assert [answer.text for answer in together] == alone
    assert len(set(alone)) == len(pairs)


def test_an_adapter_is_loaded_once_until_its_files_change(
    engine: Engine, adapters: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapters["plain"], tmp_path / "copy"))
    one = engine.adapter(folder)
    assert engine.adapter(folder) is one
    reweigh(lambda tensors: {key: tensor * 2 for key, tensor in tensors.items()})(folder)
    os.utime(folder / WEIGHTS_FILE, ns=(0, 0))
    other = engine.adapter(folder)
    layer = next(iter(one.pairs))
    assert torch.equal(other.pairs[layer][0], one.pairs[layer][0] * 2)


Damage = Callable[[Path], object]


def configure(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        (folder / CONFIG_FILE).write_text(json.dumps(config | changes))

    return damage


def reweigh(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS_FILE)), folder / WEIGHTS_FILE)


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "There is no adapter file"),
    "no config": (lambda f: (f / CONFIG_FILE).unlink(), "There is no adapter file"),
    "half a config": (lambda f: (f / CONFIG_FILE).write_text('{"peft_type": '), "cannot be read"),
    "truncated": (
        lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:-64]),
        "truncated or corrupt",
    ),
    "not safetensors": (lambda f: (f / WEIGHTS_FILE).write_bytes(b"PK" * 50), "truncated or corrupt"),
    "empty": (reweigh(lambda t: {}), "no matrices"),
    "not a number": (reweigh(lambda t: {**t, first(t): t[first(t)] * float("nan")}), "not finite"),
    "infinite": (reweigh(lambda t: {**t, first(t): t[first(t)] / 0}), "not finite"),
    "layers missing": (
        reweigh(lambda t: {k: v for k, v in t.items() if "layers.1" not in k}),
        "lacks 7 of the layers",
    ),
    "half a pair": (reweigh(lambda t: {k: v for k, v in t.items() if k != first(t)}), "only one of the two"),
    "another base": (
        reweigh(lambda t: {k: v[:, :-1].contiguous() if "lora_A" in k else v for k, v in t.items()}),
        "has shapes",
    ),
    "unknown layer": (
        reweigh(lambda t: {**t, **{k.replace("layers.0", "layers.9"): v.clone() for k, v in t.items()}}),
        "no linear layer of this base",
    ),
    "other tensors": (reweigh(lambda t: {**t, "lm_head.weight": torch.zeros(2, 2)}), "no LoRA matrix"),
    "wrong rank": (configure(r=3), "has shapes"),
    "dora": (configure(use_dora=True), "use_dora"),
    "bias": (configure(bias="all"), "bias = 'all'"),
    "whole modules": (configure(modules_to_save=["lm_head"]), "modules_to_save"),
    "not lora": (configure(peft_type="IA3"), "peft_type = 'IA3'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_broken_adapter_is_refused_by_file_and_remedy(
    name: str, engine: Engine, adapters: dict[str, Path], tmp_path: Path
) -> None:
    damage, words = DAMAGES[name]
    folder = Path(shutil.copytree(adapters["plain"], tmp_path / "copy"))
    damage(folder)
    with pytest.raises(AdapterInvalid, match=words) as refusal:
        engine.adapter(folder)
    assert str(folder) in refusal.value.message
    assert refusal.value.remedy
