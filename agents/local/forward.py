"""One pass of the model over tokens of many sequences at once, laid end to end without padding between.

Does not know requests: it is given spans of tokens, each with the attention memory it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

ATTENTION = "understudy_spans"
_SIZES = (2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


class Span(Protocol):
    """Consecutive tokens of a pass that share one attention memory."""

    count: int

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store keys and values (heads, count, width); return (count, query heads, width)."""

    def close(self) -> None:
        """Count the tokens as read."""


def register_attention() -> None:
    """Make our attention known to transformers under the name ATTENTION."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend_spans)


def bucket(count: int) -> int:
    """Return the size a matrix is padded to: the kernels of a new size cost a few milliseconds each.

    Never 1: a matrix of one row goes through other code, whose sums round otherwise.
    """
    return next((size for size in _SIZES if size >= count), -(-count // 64) * 64)


def attend_spans(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    spans: Sequence[Span],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend each span to its own memory; query is (1, heads, tokens, width), the result tokens first."""
    out = query.new_zeros(query.shape[2], query.shape[1], query.shape[3])
    start = 0
    for span in spans:
        stop = start + span.count
        out[start:stop] = span.attend(
            module.layer_idx, query[0, :, start:stop], key[0, :, start:stop], value[0, :, start:stop], scaling
        )
        start = stop
    return out[None], None


def run_pass(
    model: Any, *, ids: Sequence[int], positions: Sequence[int], spans: Sequence[Span], wanted: Sequence[int]
) -> Tensor:
    """Read the tokens into the memories of the spans; return logits (wanted, vocabulary).

    `ids` and `positions` run over the spans end to end; `wanted` are indices into them.
    """
    padding = [0] * (bucket(len(ids)) - len(ids))
    more = [0] * (bucket(len(wanted)) - len(wanted))
    device = model.device
    logits: Tensor = model(
        input_ids=torch.tensor([[*ids, *padding]], device=device),
        position_ids=torch.tensor([[*positions, *padding]], device=device),
        attention_mask=torch.zeros(1, 1, 1, 1, device=device),
        use_cache=False,
        logits_to_keep=torch.tensor([*wanted, *more], device=device),
        spans=spans,
    ).logits
    for span in spans:
        span.close()
    return logits[0, : len(wanted)]
