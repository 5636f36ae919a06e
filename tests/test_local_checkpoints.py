"""Base models are found, converted once, and refused with a remedy when they cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import write_tiny_checkpoint

from agents.errors import ModelUnavailable, StorageError
from agents.local.checkpoints import load_model, load_tokenizer, prepare_checkpoint
from agents.local.embeddings import WIDTH, embed
from agents.local.engine import Engine

CONVERT = "from agents.local.checkpoints import *; print(prepare_checkpoint('smollm2-135m', Path({!r})))"


def start_conversion(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT.format(str(cache))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_folder_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert prepare_checkpoint(str(folder), tmp_path / "cache") == folder
    assert prepare_checkpoint("./tiny", tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "There is no model at nowhere"),
        ("/nowhere/at/all", "There is no model at /nowhere/at/all"),
        ("not a name!", "neither a folder nor a Hugging Face id"),
    ],
)
def test_a_model_that_is_not_there_is_refused_with_a_remedy(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=words) as refusal:
        prepare_checkpoint(name, tmp_path)
    assert "local/smollm2-135m" in refusal.value.remedy


def test_an_unknown_hub_id_is_refused_in_one_line(tmp_path: Path) -> None:
    code = """
from agents.errors import ModelUnavailable
from agents.local.checkpoints import *
try:
    prepare_checkpoint("understudy-tests/no-such-model", Path("unused"))
except ModelUnavailable as error:
    print(error)
"""
    offline = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=offline
    )
    assert result.stdout.startswith("The model 'understudy-tests/no-such-model' is not in the local Hugging")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_a_folder_or_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ModelUnavailable, match=r"no config\.json and 0 GGUF files"):
        prepare_checkpoint(str(tmp_path), tmp_path)
    with pytest.raises(ModelUnavailable, match="no GGUF file"):
        prepare_checkpoint(str(tmp_path / "notes.txt"), tmp_path)


def test_a_gguf_file_that_is_none_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "fake.gguf").write_bytes(b"GGUF, but not really" * 100)
    with pytest.raises(ModelUnavailable, match=r"fake\.gguf cannot be loaded"):
        prepare_checkpoint(str(tmp_path / "fake.gguf"), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache" / "checkpoints").iterdir() if path.is_dir()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        prepare_checkpoint("smollm2-135m", tmp_path / "cache")


def test_a_cache_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        prepare_checkpoint("smollm2-135m", tmp_path / "file")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_truncated_file_is_refused(file: str, tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path)
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        Engine(folder)


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path, layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "layer_types": None}))
    with pytest.raises(ModelUnavailable, match=r"lack 9 weights, model\.layers\.1"):
        Engine(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ],
)
def test_attention_that_we_do_not_compute_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    folder = write_tiny_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelUnavailable, match=words) as refusal:
        Engine(folder)
    assert "vLLM" in refusal.value.remedy


def test_embeddings_have_length_one_and_know_what_is_close() -> None:
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    vectors = embed(texts)
    assert vectors.shape == (3, WIDTH)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(0.755, abs=0.01)
    assert vectors[0] @ vectors[2] < 0.2


def test_an_embedding_does_not_depend_on_the_others() -> None:
    texts = [f"number {i} " * (1 + i % 40) for i in range(70)]
    many = embed(texts)
    for index in (0, 39, 69):
        assert many[index] == pytest.approx(embed([texts[index]])[0], abs=1e-5)
    assert embed([]).shape == (0, WIDTH)


@pytest.mark.model
def test_the_embedded_model_is_converted_once(model_cache: Path) -> None:
    folder = prepare_checkpoint("smollm2-135m", model_cache)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert prepare_checkpoint("smollm2-135m", model_cache) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    model = load_model(folder, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert load_tokenizer(folder).eos_token == "<|im_end|>"


@pytest.mark.model
@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_and_two_at_once_make_one(tmp_path: Path) -> None:
    killed = start_conversion(tmp_path)
    while not list(tmp_path.glob("checkpoints/*.partial/*")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    folders = [path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()]
    assert [path.suffix for path in folders] == [".partial"]

    both = [start_conversion(tmp_path) for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == ""
    folder = Path(outputs[0][0].strip())
    assert [path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == [folder]
    assert load_model(folder, torch.bfloat16).config.num_hidden_layers == 30
