"""The learning itself: loss on the assistant's words, one optimiser step, a checkpoint that continues it.

Does not know adapters or folders: it is given a model, some of whose parameters are to be trained.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agents.errors import TrainingFailed
from agents.local.cores import usable_cores
from tasks.training.base import Hyperparameters
from tasks.training.packing import PADDING, SHARED, Packed, Step
from tasks.training.reporting import Progress

if TYPE_CHECKING:
    from torch import Tensor


class Learner:
    """A model with its optimiser; parameters that require a gradient are float32 and are trained."""

    def __init__(self, model: Any, settings: Hyperparameters) -> None:
        import torch

        torch.set_num_threads(usable_cores())
        self.model = model
        self.settings = settings
        self.trained: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            list(self.trained.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def __str__(self) -> str:
        precision = str(self.model.dtype).removeprefix("torch.")
        parameters = sum(parameter.numel() for parameter in self.trained.values())
        return f"{parameters:,} parameters over a {precision} base on {self.model.device.type}"

    def step(self, step: Step, rate: float) -> float:
        """Take one optimiser step and return the mean loss (nats per learned token).

        Raises TrainingFailed when the loss is not a finite number.
        """
        import torch

        self.model.train()
        total = 0.0
        for sequence in step.sequences:
            loss = self.loss(sequence) / step.targets
            torch.autograd.backward(loss)
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingFailed(
                f"The loss became {total} (gradient norm {norm}) at a learning rate of {rate:.2g}.",
                "Lower the learning rate or the gradient norm, and train again.",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def measure(self, sequences: Sequence[Packed]) -> float:
        """Return the mean loss (nats per learned token) without learning."""
        import torch

        self.model.eval()
        with torch.no_grad():
            total = sum(self.loss(sequence).item() for sequence in sequences)
        return total / sum(len(sequence.labels) for sequence in sequences)

    def checkpoint(self, progress: Progress) -> bytes:
        """Return all that decides the further course."""
        import torch

        content = io.BytesIO()
        torch.save(
            {
                "progress": asdict(progress),
                "trained": {name: weight.detach() for name, weight in self.trained.items()},
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            content,
        )
        return content.getvalue()

    def restore(self, checkpoint: bytes) -> Progress:
        """Go on from a checkpoint, exactly as if there had been no break, and return what is behind."""
        import torch

        kept = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(kept["trained"][name])
        self.optimizer.load_state_dict(kept["optimizer"])
        torch.set_rng_state(kept["random"])
        return Progress(**kept["progress"])

    def loss(self, packed: Packed) -> Tensor:
        """Return the summed loss of a sequence; the vocabulary is looked at only where a token is learned."""
        import torch

        device = self.model.device
        with self._precision():
            logits = self.model(
                input_ids=torch.tensor([packed.ids], device=device),
                position_ids=torch.tensor([packed.positions], device=device),
                attention_mask=visible(packed).to(device),
                logits_to_keep=torch.tensor(packed.rows, device=device),
                use_cache=False,
            ).logits[0]
        labels = torch.tensor(packed.labels, device=device)
        return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        if self.model.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.model.dtype)


def visible(packed: Packed) -> Tensor:
    """Return which position sees which, boolean (1, 1, length, length).

    A position sees the shared beginning and its own segment, never what comes later; padding sees padding.
    """
    import torch

    segments = torch.tensor(packed.segments)
    own = segments[:, None] == segments[None, :]
    shared = (segments[None, :] == SHARED) & (segments[:, None] != PADDING)
    return (own | shared).tril()[None, None]
