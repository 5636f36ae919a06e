"""Linear layers that add, token by token, the low-rank product of the adapter the token belongs to.

Does not know where adapters come from. The adapters of a batch stand side by side in one pair of
matrices per layer; a mask over the ranks keeps each token to its own, so that a mixed batch costs two
small products per layer and not two per adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_KEPT = 4


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank pairs by layer name: A is (rank, in), B is (out, rank) with the scaling in it."""

    name: str
    rank: int
    pairs: Mapping[str, tuple[Tensor, Tensor]]


class Router:
    """Which adapters the layers apply to which tokens of the pass at hand."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.pairs: Mapping[str, tuple[Tensor, Tensor]] = {}
        self.others: Tensor | None = None
        self._stack: list[Adapter] = []
        self._stacked: Mapping[str, tuple[Tensor, Tensor]] = {}

    def route(self, owners: Sequence[tuple[Adapter | None, int]], padded: int) -> None:
        """Prepare a pass whose tokens belong, in runs of the given counts, to these adapters.

        `padded` is the number of tokens with padding.
        """
        needed = list(dict.fromkeys(owner for owner, _ in owners if owner is not None))
        if not needed:
            self.pairs, self.others = {}, None
        elif len(needed) == 1 and all(owner is not None for owner, _ in owners):
            self.pairs, self.others = needed[0].pairs, None
        else:
            self._restack(needed)
            self.pairs, self.others = self._stacked, self._others(owners, padded)

    def _restack(self, needed: list[Adapter]) -> None:
        """Keep the stack while it covers what is needed and little else."""
        bound = max(_KEPT, 2 * len(needed))
        if set(needed) <= set(self._stack) and len(self._stack) <= bound:
            return
        others = [adapter for adapter in self._stack if adapter not in needed]
        self._stack = needed + others[: max(0, _KEPT - len(needed))]
        self._stacked = _side_by_side(self._stack)

    def _others(self, owners: Sequence[tuple[Adapter | None, int]], padded: int) -> Tensor:
        """Return for each token the ranks (tokens, ranks) that are not its own adapter's."""
        place = {adapter: index for index, adapter in enumerate(self._stack)}
        tokens = [place[owner] if owner else -1 for owner, count in owners for _ in range(count)]
        tokens += [-1] * (padded - len(tokens))
        ranks = [index for index, adapter in enumerate(self._stack) for _ in range(adapter.rank)]
        own = torch.tensor(tokens, device=self._device)[:, None]
        return own != torch.tensor(ranks, device=self._device)[None, :]


class RoutedLinear(nn.Module):
    """A linear layer (shared with the base model) plus what the router says."""

    def __init__(self, base: nn.Linear, name: str, router: Router) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.in_features, self.out_features = base.in_features, base.out_features
        self._name = name
        self._router = router

    def forward(self, x: Tensor) -> Tensor:
        """Return the product for x (…, tokens, in)."""
        out = linear(x, self.weight, self.bias)
        pair = self._router.pairs.get(self._name)
        if pair is None:
            return out
        low = linear(x, pair[0])
        if self._router.others is not None:
            low = low.masked_fill(self._router.others, 0)
        return out + linear(low, pair[1])


def install_router(model: nn.Module, router: Router) -> dict[str, RoutedLinear]:
    """Replace every linear layer but the output head by a routed one; return them by name."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    routed = {name: RoutedLinear(module, name, router) for name, module in layers.items()}
    for name, module in routed.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return routed


def _side_by_side(adapters: Sequence[Adapter]) -> dict[str, tuple[Tensor, Tensor]]:
    stacked: dict[str, tuple[Tensor, Tensor]] = {}
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.pairs):
        a, b = next(adapter.pairs[name] for adapter in adapters if name in adapter.pairs)
        parts = [
            adapter.pairs.get(name)
            or (a.new_zeros(adapter.rank, a.shape[1]), b.new_zeros(b.shape[0], adapter.rank))
            for adapter in adapters
        ]
        stacked[name] = (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts], 1))
    return stacked
