"""Draws the next token of each row: temperature, nucleus and penalties as OpenAI defines them.

Does not know the model or the batch: one uniform number per token from the request's own generator
decides, so that a draw does not depend on who else was in the batch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from agents.chat import Sampling

_NUCLEUS = 512


class Sampler:
    """How one request draws its tokens, and which it has drawn."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.counts: Counter[int] = Counter()
        self._random = random.Random(sampling.seed)  # noqa: S311  (drawing words, not secrets)

    def uniform(self) -> float:
        """Return the next number in [0, 1) of this request."""
        return self._random.random()


def draw_tokens(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Draw one token per row of float logits (rows, vocabulary) and count it in its sampler."""
    logits = _penalised(logits, samplers)
    tokens: list[int] = logits.argmax(-1).tolist()
    drawn = [row for row, sampler in enumerate(samplers) if sampler.sampling.temperature > 0]
    if drawn:
        chosen = _draw(logits[drawn], [samplers[row] for row in drawn])
        for row, token in zip(drawn, chosen, strict=True):
            tokens[row] = token
    for sampler, token in zip(samplers, tokens, strict=True):
        sampler.counts[token] += 1
    return tokens


def _penalised(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    rows: list[int] = []
    columns: list[int] = []
    amounts: list[float] = []
    for row, sampler in enumerate(samplers):
        frequency, presence = sampler.sampling.frequency_penalty, sampler.sampling.presence_penalty
        if frequency or presence:
            rows += [row] * len(sampler.counts)
            columns += sampler.counts
            amounts += [frequency * count + presence for count in sampler.counts.values()]
    if not rows:
        return logits
    where = (torch.tensor(rows, device=logits.device), torch.tensor(columns, device=logits.device))
    return logits.index_put(where, -torch.tensor(amounts, device=logits.device), accumulate=True)


def _draw(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    heat = torch.tensor([[s.sampling.temperature] for s in samplers], device=logits.device)
    logits = logits - logits.amax(-1, keepdim=True)
    probabilities = torch.softmax(logits / heat, -1)
    luck = torch.tensor([[s.uniform()] for s in samplers], dtype=torch.float64, device=logits.device)
    tokens = [0] * len(samplers)
    whole = [row for row, sampler in enumerate(samplers) if sampler.sampling.top_p >= 1.0]
    cut = [row for row, sampler in enumerate(samplers) if sampler.sampling.top_p < 1.0]
    if whole:
        _assign(tokens, whole, _invert(probabilities[whole], luck[whole]))
    if cut:
        nucleus = torch.tensor([[samplers[row].sampling.top_p] for row in cut], device=logits.device)
        _assign(tokens, cut, _invert_nucleus(probabilities[cut], luck[cut], nucleus))
    return tokens


def _assign(tokens: list[int], rows: Sequence[int], values: Tensor) -> None:
    for row, value in zip(rows, values.tolist(), strict=True):
        tokens[row] = value


def _invert(weights: Tensor, luck: Tensor) -> Tensor:
    """Return per row the column where the running sum of the weights passes `luck` of their total."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    columns = torch.searchsorted(sums, luck * sums[:, -1:], right=True)[:, 0]
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).to(torch.uint8).argmax(-1)
    return torch.minimum(columns, last)


def _invert_nucleus(probabilities: Tensor, luck: Tensor, nucleus: Tensor) -> Tensor:
    """Draw from the fewest tokens whose probabilities reach the nucleus."""
    count = min(_NUCLEUS, probabilities.shape[-1])
    top, columns = probabilities.topk(count, dim=-1)
    if bool((top.sum(-1, keepdim=True) < nucleus).any()):
        top, columns = probabilities.sort(dim=-1, descending=True, stable=True)
    before = top.cumsum(-1) - top
    kept = top * (before < nucleus)
    return columns.gather(-1, _invert(kept, luck)[:, None])[:, 0]
