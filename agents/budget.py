"""A purse for one run: no call is made that could bring what was spent above the budget.

Does not know what the calls are for. Before a call the most that it can cost is set aside: its prompt as
estimated and as many tokens as it may write, at the model's tariff; afterwards what it did cost is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agents.chat import ChatAnswer, ChatDelta, ChatModel, ChatRequest, Relay, Tariff, TextScore, Usage
from agents.errors import BudgetReached
from agents.schemas import Messages

EXACT = 1e-9  # US dollars; what is less is a rounding error of sums


@dataclass
class Purse:
    """US dollars: what may be spent, what was, and what is set aside for the calls at hand."""

    budget: float
    spent: float = 0.0
    held: float = 0.0
    _returned: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def holding(self, most: float) -> AsyncIterator[None]:
        """Set aside the most that a call can cost, once calls at hand have left that much.

        Raises BudgetReached when they are all paid and it is not there.
        """
        while self.spent + self.held + most > self.budget:
            if not self.held:
                raise BudgetReached(
                    f"The budget of {self.budget:.4f} USD is reached: {self.spent:.4f} USD are spent, and "
                    f"the next call may cost {most:.4f} USD.",
                    "What is finished is kept; give the same command a larger budget to continue.",
                )
            self._returned.clear()
            await self._returned.wait()
        self.held += most
        try:
            yield
        finally:
            self.held = self.held - most if self.held - most > EXACT else 0.0
            self._returned.set()


@dataclass(frozen=True)
class BudgetedModel(Relay):
    """A ChatModel whose answers are paid from a purse."""

    model: ChatModel
    purse: Purse
    tariff: Tariff

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Answer the request if it can be paid for; raise BudgetReached otherwise."""
        async with self.purse.holding(self._most(request)):
            answer = await self.model.complete(request)
            self.purse.spent += self.tariff.cost(answer.usage) if answer.cost is None else answer.cost
        return answer

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Stream the answer if it can be paid for; raise BudgetReached otherwise."""
        async with self.purse.holding(self._most(request)):
            async for delta in self.model.stream(request):
                if delta.answer is not None:
                    self.purse.spent += self.tariff.cost(delta.answer.usage)
                yield delta

    async def score(self, messages: Messages) -> TextScore:
        """Score as the model does: only models of this machine can, at no cost."""
        return await self.model.score(messages)

    def _most(self, request: ChatRequest) -> float:
        read, written = self.count_tokens(request.messages), request.sampling.max_tokens
        return self.tariff.cost(Usage(prompt_tokens=read, completion_tokens=written))
