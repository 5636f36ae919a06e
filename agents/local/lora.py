"""Reads a LoRA adapter in PEFT's file layout, and refuses one that would not answer as it was trained.

Does not know PEFT: the two files are read as they are, adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from agents.errors import AdapterInvalid
from agents.local.routing import Adapter

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_AGAIN = "Train the adapter again, or fetch its files again."
_PLAIN = "Train a plain LoRA adapter on linear layers, or merge this one into its base and open the folder."


class LoraConfig(BaseModel):
    """What of adapter_config.json decides the answer; everything else in it is PEFT's own business."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1)
    lora_alpha: float
    target_modules: list[str] | str | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    use_dora: Literal[False] = False
    lora_bias: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    modules_to_save: list[str] | None = Field(default=None, max_length=0)
    target_parameters: list[str] | None = Field(default=None, max_length=0)
    trainable_token_indices: list[int] | dict[str, list[int]] | None = Field(default=None, max_length=0)
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None

    def scaling(self, layer: str, rank: int) -> float:
        """Return what the low-rank product of a layer is multiplied by."""
        alpha = next(
            (value for key, value in self.alpha_pattern.items() if _matches(key, layer)), self.lora_alpha
        )
        return float(alpha / (rank**0.5 if self.use_rslora else rank))

    def rank(self, layer: str) -> int:
        """Return the rank of a layer."""
        return next((value for key, value in self.rank_pattern.items() if _matches(key, layer)), self.r)


def load_adapter(
    folder: Path, layers: Mapping[str, tuple[int, int]], *, dtype: torch.dtype, device: torch.device
) -> Adapter:
    """Load an adapter for a base whose linear layers have these (out, in) sizes.

    Raises AdapterInvalid, naming the file, when it is missing, unreadable, not finite, not a plain LoRA
    or made for another base.
    """
    config = _read_config(folder / CONFIG_FILE)
    file = folder / WEIGHTS_FILE
    halves = _split(_read_tensors(file), file)
    _check_targets(config, halves, layers, file)
    rank = max(side["A"].shape[0] for side in halves.values())
    pairs = {}
    for layer, side in halves.items():
        a, b = _checked(layer, side, layers, config, file)
        b = b * config.scaling(layer, a.shape[0])
        pairs[layer] = _padded(a, b, rank, dtype, device)
        if not all(bool(torch.isfinite(matrix).all()) for matrix in pairs[layer]):
            raise AdapterInvalid(f"{file} holds values that are not finite numbers (in {layer}).", _AGAIN)
    return Adapter(name=folder.name, rank=rank, pairs=pairs)


def _read_config(file: Path) -> LoraConfig:
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterInvalid(f"There is no adapter file {file}.", _AGAIN) from error
    except (OSError, ValueError) as error:
        raise AdapterInvalid(f"{file} cannot be read: {error}.", _AGAIN) from error
    try:
        return LoraConfig.model_validate(raw)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'} = {str(e['input'])[:60]!r}" for e in error.errors()[:3]
        )
        raise AdapterInvalid(f"{file} asks for what is not supported: {found}.", _PLAIN) from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise AdapterInvalid(f"There is no adapter file {file}.", _AGAIN)
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterInvalid(f"{file} is truncated or corrupt: {error}.", _AGAIN) from error
    return tensors


def _split(tensors: Mapping[str, Tensor], file: Path) -> dict[str, dict[str, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None or tensor.ndim != 2:
            raise AdapterInvalid(
                f"{file} holds {key!r} of shape {tuple(tensor.shape)}, which is no LoRA matrix.", _PLAIN
            )
        halves.setdefault(found["layer"], {})[found["side"]] = tensor.float()
    if not halves:
        raise AdapterInvalid(f"{file} holds no matrices at all.", _AGAIN)
    for layer, side in halves.items():
        if len(side) != 2:
            raise AdapterInvalid(f"{file} holds only one of the two matrices of {layer}.", _AGAIN)
    return halves


def _check_targets(
    config: LoraConfig, halves: Mapping[str, object], layers: Mapping[str, object], file: Path
) -> None:
    """Refuse files that lack layers their own configuration says were trained."""
    targets = config.target_modules
    if not isinstance(targets, list) or config.exclude_modules or config.layers_to_transform is not None:
        return
    absent = [
        layer
        for layer in layers
        if layer not in halves and any(layer == t or layer.endswith(f".{t}") for t in targets)
    ]
    if absent:
        raise AdapterInvalid(
            f"{file} lacks {len(absent)} of the layers that {CONFIG_FILE} names, {absent[0]} first.", _AGAIN
        )


def _checked(
    layer: str,
    side: Mapping[str, Tensor],
    layers: Mapping[str, tuple[int, int]],
    config: LoraConfig,
    file: Path,
) -> tuple[Tensor, Tensor]:
    if layer not in layers:
        raise AdapterInvalid(
            f"{file} changes {layer}, which is no linear layer of this base model.",
            "Open the adapter on the base it was trained on.",
        )
    (out_size, in_size), rank = layers[layer], config.rank(layer)
    want = ((rank, in_size), (out_size, rank))
    have = (tuple(side["A"].shape), tuple(side["B"].shape))
    if have != want:
        raise AdapterInvalid(
            f"{file} has shapes {have[0]}, {have[1]} for {layer}; this base needs {want[0]}, {want[1]}.",
            "Open the adapter on the base it was trained on.",
        )
    return side["A"], side["B"]


def _padded(
    a: Tensor, b: Tensor, rank: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Fill up to the adapter's largest rank with zeros, so that one mask fits every layer."""
    more = rank - a.shape[0]
    a = torch.nn.functional.pad(a, (0, 0, 0, more))
    b = torch.nn.functional.pad(b, (0, more))
    return a.to(device, dtype).contiguous(), b.to(device, dtype).contiguous()


def _matches(key: str, layer: str) -> bool:
    """Say whether a key of rank_pattern or alpha_pattern means this layer (PEFT's rule)."""
    return re.match(rf"(.*\.)?({key})$", layer) is not None
