"""One engine per checkpoint and process: a thread that owns the model and batches whatever is asked of it.

Does not know event loops: work is handed in from any thread, and news go to the work's listener.
"""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakValueDictionary

import torch

from agents.errors import ModelError, ModelUnavailable, UnderstudyError
from agents.local.batch import Batch
from agents.local.checkpoints import load_model, load_tokenizer
from agents.local.cores import CoreWatch
from agents.local.forward import ATTENTION, register_attention
from agents.local.kv import Shape
from agents.local.lora import CONFIG_FILE, WEIGHTS_FILE, load_adapter
from agents.local.routing import Adapter, Router, install_router
from agents.local.work import Work

_SECONDS_TO_CLOSE = 10.0
_engines: dict[Path, Engine] = {}
_opening = threading.Lock()


def open_engine(folder: Path) -> Engine:
    """Return the process's engine for a prepared checkpoint, started if need be."""
    with _opening:
        engine = _engines.get(folder)
        if engine is None or engine.closed:
            engine = _engines[folder] = Engine(folder)
        return engine


def best_device() -> torch.device:
    """Return the GPU when there is one that torch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device computes in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


class Engine:
    """A base model, its adapters and the batch that runs on it."""

    def __init__(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        register_attention()
        self.folder = folder
        self.tokenizer = load_tokenizer(folder)
        device = best_device()
        self._dtype = dtype or best_dtype(device)
        model = load_model(folder, self._dtype, attention=ATTENTION).to(device)
        _check_supported(model, folder)
        config = model.config.get_text_config()
        self.context_window = _window(config)
        self.stop_ids = _stop_ids(model, self.tokenizer)
        router = Router(device)
        self.layers = {
            name: (layer.out_features, layer.in_features)
            for name, layer in install_router(model, router).items()
        }
        self._device = device
        self._adapters: WeakValueDictionary[tuple[object, ...], Adapter] = WeakValueDictionary()
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._end: UnderstudyError | None = None
        self._batch = Batch(model, router, memory_shape(config, self._dtype, device))
        self._thread = threading.Thread(target=self._run, name=f"engine {folder.name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def closed(self) -> bool:
        """Say whether the engine has ended, by `close` or by an error that it could not survive."""
        return self._end is not None

    def adapter(self, folder: Path) -> Adapter:
        """Return the adapter in a folder, loaded once while anybody uses it; raise AdapterInvalid."""
        key = (folder, *(_stamp(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)))
        with self._loading:
            found = self._adapters.get(key)
            if found is None:
                found = load_adapter(folder, self.layers, dtype=self._dtype, device=self._device)
                self._adapters[key] = found
            return found

    def submit(self, work: Work) -> None:
        """Hand in work; its listener hears the rest, from the engine's thread."""
        with self._lock:
            if self._end is None:
                self._inbox.put(work)
                return
        work.listener.hear(self._end)

    def close(self) -> None:
        """Stop the thread; work that is not done is told so."""
        self._stop(ModelError(f"The engine of {self.folder.name} was closed.", "Open the model again."))
        if threading.current_thread() is not self._thread:
            self._thread.join(_SECONDS_TO_CLOSE)
        atexit.unregister(self.close)

    def _stop(self, reason: UnderstudyError) -> None:
        with self._lock:
            if self._end is None:
                self._end = reason
                self._inbox.put(None)

    def _run(self) -> None:
        died = ModelError(f"The engine of {self.folder.name} died of a defect.", "Report it, and ask again.")
        try:
            with torch.inference_mode():
                self._work()
        finally:
            self._stop(died)
            while (work := self._inbox.get()) is not None:
                self._batch.add(work)
            self._batch.fail(self._end or died)

    def _work(self) -> None:
        """Step while there is work; sleep on the inbox when there is none."""
        watch = CoreWatch()
        while self._receive():
            if self._device.type == "cpu" and torch.get_num_threads() != (threads := watch.threads_now()):
                torch.set_num_threads(threads)
            try:
                self._batch.step()
            except (RuntimeError, MemoryError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                self._batch.fail(
                    ModelError(
                        f"The model in {self.folder.name} failed while computing: {reason}",
                        "Ask again; if memory is short, run fewer or shorter requests at once.",
                    )
                )

    def _receive(self) -> bool:
        """Take in what was handed in, waiting only when idle; return False when the engine is to end."""
        try:
            work = self._inbox.get(block=not self._batch.busy)
            while work is not None:
                self._batch.add(work)
                work = self._inbox.get_nowait()
        except Empty:
            return True
        self._inbox.put(None)
        return False


def _stamp(file: Path) -> tuple[int, int]:
    """Return what changes when a file is replaced; zeros when it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


def memory_shape(config: Any, dtype: torch.dtype, device: torch.device) -> Shape:
    """Return what a model of this configuration keeps of each token."""
    return Shape(
        layers=config.num_hidden_layers,
        heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        dtype=dtype,
        device=device,
    )


def _window(config: Any) -> int:
    """Return the context window in tokens; attention over all of it is all we compute."""
    windows = (config.max_position_embeddings, getattr(config, "sliding_window", None))
    return min(int(window) for window in windows if window)


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer, as the checkpoint names them."""
    found = model.generation_config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)


def _check_supported(model: Any, folder: Path) -> None:
    """Refuse architectures whose attention is more than keys, values and a causal mask."""
    config = model.config.get_text_config()
    odd = [kind for kind in getattr(config, "layer_types", None) or () if kind != "full_attention"]
    odd += [
        name for name in ("attn_logit_softcapping", "kv_lora_rank") if getattr(config, name, None) is not None
    ]
    if odd or not model._supports_attention_backend:
        raise ModelUnavailable(
            f"The model in {folder} ({config.model_type}) is not a plain decoder "
            f"({', '.join(sorted(set(odd))) or 'its attention cannot be replaced'}).",
            "Serve it with vLLM or Ollama and open it by that address.",
        )
