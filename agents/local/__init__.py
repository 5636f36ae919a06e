"""The local models: any causal language model from files, in this process, with LoRA adapters.

Does not know where adapters are kept: `ModelPlaces` says so. torch is imported when a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.chat import ModelAddress, ModelPlaces
from agents.schemas import Messages

if TYPE_CHECKING:
    from agents.local.model import LocalModel


def open_local(address: ModelAddress, places: ModelPlaces) -> LocalModel:
    """Open `local/<name>` or `local/<name>@<adapter>`.

    `<name>` is smollm2-135m (embedded), a folder, a GGUF file or a Hugging Face id. All models on one
    checkpoint share one engine. Raises ModelUnavailable or AdapterInvalid.
    """
    from agents.local.checkpoints import prepare_checkpoint
    from agents.local.engine import open_engine
    from agents.local.model import LocalModel

    engine = open_engine(prepare_checkpoint(address.name, places.cache))
    adapter = engine.adapter(places.adapter_folder(address.adapter)) if address.adapter else None
    return LocalModel(address, engine, adapter)


def open_local_counter(address: ModelAddress, places: ModelPlaces) -> Callable[[Messages], int]:
    """Return what counts the tokens of a prompt as `local/<name>` reads it, without loading its weights.

    Raises ModelUnavailable like `open_local`.
    """
    from agents.local.checkpoints import prepare_checkpoint
    from agents.local.tokens import encode_prompt

    tokenizer = _tokenizer(prepare_checkpoint(address.name, places.cache))
    return lambda messages: len(encode_prompt(tokenizer, messages))


@cache
def _tokenizer(folder: Path) -> Any:
    from agents.local.checkpoints import load_tokenizer

    return load_tokenizer(folder)
