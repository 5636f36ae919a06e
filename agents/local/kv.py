"""The attention memory of sequences: one buffer while a prompt is read, tables of rows while it is answered.

Does not know requests or models: it keeps keys and values, and computes attention over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

GRAIN = 64
SHORTEST_TABLE = 256
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shape:
    """What one token takes: `layers` × 2 × `heads` × `width` numbers of `dtype` on `device`."""

    layers: int
    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device

    def buffer(self, *lead: int) -> Tensor:
        """Return zeros of shape (layers, *lead, width); not-a-number garbage would pass any mask."""
        return torch.zeros(self.layers, *lead, self.width, dtype=self.dtype, device=self.device)


def round_up(count: int, grain: int = GRAIN) -> int:
    """Return the next multiple of the grain."""
    return -(-count // grain) * grain


def table_room(length: int) -> int:
    """Return the room for that many tokens: SHORTEST_TABLE, doubled until it is enough."""
    return int(max(SHORTEST_TABLE, 1 << (length - 1).bit_length()))


class PromptMemory:
    """Keys and values of one sequence, (layers, heads, capacity, width), of which `length` are filled."""

    def __init__(self, shape: Shape, capacity: int) -> None:
        self.keys = shape.buffer(shape.heads, round_up(capacity))
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def copy_from(self, other: PromptMemory, length: int) -> None:
        """Take over the first `length` tokens of another sequence."""
        self.keys[:, :, :length] = other.keys[:, :, :length]
        self.values[:, :, :length] = other.values[:, :, :length]
        self.length = length


class Chunk:
    """Attention for the next tokens of one prompt: each sees what was read before, and the chunk up to it.

    It is computed in blocks of GRAIN queries that start at multiples of GRAIN, the last one filled up: so
    every block has the same shape, and rounds the same, however the prompt was divided into chunks and
    whoever else was in the batch. Chunks must therefore begin at such a multiple.
    """

    def __init__(self, memory: PromptMemory, count: int) -> None:
        self.memory = memory
        self.start = memory.length
        self.count = count

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store keys and values (heads, count, width); return (count, query heads, width)."""
        keys, values = self.memory.keys[layer], self.memory.values[layer]
        stop, heads, width = self.start + self.count, key.shape[0], key.shape[2]
        keys[:, self.start : stop] = key
        values[:, self.start : stop] = value
        query = pad(query, (0, 0, 0, -self.count % GRAIN))
        room = table_room(self.start + query.shape[1])
        mask = _future(room, query.shape[0] // heads, query.dtype, query.device)
        out = []
        for at in range(0, query.shape[1], GRAIN):
            seen = self.start + at + GRAIN
            block = scaled_dot_product_attention(
                query[:, at : at + GRAIN].reshape(1, heads, -1, width),
                keys[None, :, :seen],
                values[None, :, :seen],
                attn_mask=mask[..., room - seen :],
                scale=scale,
            )
            out.append(block.view(query.shape[0], GRAIN, width))
        return torch.cat(out, 1)[:, : self.count].transpose(0, 1)

    def close(self) -> None:
        """Count the chunk as read."""
        self.memory.length = self.start + self.count


@lru_cache(maxsize=16)
def _future(room: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the mask (1, 1, group × GRAIN, room) whose last GRAIN positions hide what follows them."""
    mask = torch.zeros(GRAIN, room, dtype=dtype, device=device)
    mask[:, room - GRAIN :] = torch.full((GRAIN, GRAIN), float("-inf"), dtype=dtype, device=device).triu(1)
    return mask.repeat(group, 1)[None, None]


class Table(Generic[Item]):
    """Rows of sequences that are being answered, each with room for `room` tokens; rows stay compact."""

    def __init__(self, shape: Shape, room: int) -> None:
        self.room = room
        self.items: list[Item] = []
        self.lengths: list[int] = []
        self._shape = shape
        self._keys = shape.buffer(0, shape.heads, room)
        self._values = torch.zeros_like(self._keys)

    def add(self, item: Item, keys: Tensor, values: Tensor, length: int) -> None:
        """Take in a sequence whose first `length` tokens lie in keys and values (layers, heads, ≥, width)."""
        row = len(self.items)
        if row == self._keys.shape[1]:
            self._grow()
        for mine, its in ((self._keys, keys), (self._values, values)):
            mine[:, row, :, :length] = its[:, :, :length]
            mine[:, row, :, length:] = 0
        self.items.append(item)
        self.lengths.append(length)

    def row(self, row: int) -> tuple[Tensor, Tensor, int]:
        """Return keys, values (layers, heads, room, width) and the length of a row."""
        return self._keys[:, row], self._values[:, row], self.lengths[row]

    def remove(self, row: int) -> None:
        """Let a sequence go; the last row takes its place."""
        last = len(self.items) - 1
        if row != last:
            filled = self.lengths[last]
            for buffer in (self._keys, self._values):
                buffer[:, row, :, :filled] = buffer[:, last, :, :filled]
                buffer[:, row, :, filled:] = 0
            self.items[row], self.lengths[row] = self.items[last], filled
        self.items.pop()
        self.lengths.pop()

    def next_tokens(self) -> RowStep:
        """Return the attention of one step in which every row gets one token."""
        return RowStep(self._keys, self._values, self.lengths)

    def _grow(self) -> None:
        rows = max(1, 2 * self._keys.shape[1])
        for name in ("_keys", "_values"):
            old: Tensor = getattr(self, name)
            new = self._shape.buffer(rows, self._shape.heads, self.room)
            new[:, : old.shape[1]] = old
            setattr(self, name, new)


class RowStep:
    """Attention for one new token in each row of a table."""

    def __init__(self, keys: Tensor, values: Tensor, lengths: list[int]) -> None:
        self.count = len(lengths)
        self._seen = min(round_up(max(lengths) + 1), keys.shape[3])
        self._keys, self._values, self._lengths = keys, values, lengths
        self._at = torch.tensor(lengths, device=keys.device)
        self._rows = torch.arange(self.count, device=keys.device)
        hidden = torch.arange(self._seen, device=keys.device)[None, :] > self._at[:, None]
        mask = torch.zeros(hidden.shape, dtype=keys.dtype, device=keys.device)
        self._mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None, :]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store keys and values (heads, count, width); return (count, query heads, width).

        The query heads that share a key head stand as its query positions: no key is copied per head.
        """
        keys, values = self._keys[layer, : self.count], self._values[layer, : self.count]
        keys[self._rows, :, self._at] = key.transpose(0, 1)
        values[self._rows, :, self._at] = value.transpose(0, 1)
        out = scaled_dot_product_attention(
            query.transpose(0, 1).reshape(self.count, keys.shape[1], -1, query.shape[-1]),
            keys[:, :, : self._seen],
            values[:, :, : self._seen],
            attn_mask=self._mask,
            scale=scale,
        )
        return out.reshape(self.count, query.shape[0], -1)

    def close(self) -> None:
        """Count the tokens as read."""
        for row in range(self.count):
            self._lengths[row] += 1


class Tables(Generic[Item]):
    """All sequences that are being answered, in tables of doubling length; nothing is kept when idle."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._tables: dict[int, Table[Item]] = {}

    def __len__(self) -> int:
        return sum(len(table.items) for table in self._tables.values())

    @property
    def items(self) -> list[Item]:
        """Return the sequences in the order of `steps`."""
        return [item for table in self._tables.values() for item in table.items]

    def steps(self) -> list[RowStep]:
        """Return one attention step per table, after moving rows that are full to a longer table."""
        for table in list(self._tables.values()):
            for row in reversed(range(len(table.items))):
                if table.lengths[row] == table.room:
                    self._move(table, row)
        self._drop_empty()
        return [table.next_tokens() for table in self._tables.values()]

    def add(self, item: Item, memory: PromptMemory) -> None:
        """Take in a sequence whose prompt has been read."""
        self._table(memory.length + 1).add(item, memory.keys, memory.values, memory.length)

    def discard(self, gone: set[Item]) -> None:
        """Free the rows of the given sequences."""
        for table in self._tables.values():
            for row in reversed(range(len(table.items))):
                if table.items[row] in gone:
                    table.remove(row)
        self._drop_empty()

    def _move(self, table: Table[Item], row: int) -> None:
        keys, values, length = table.row(row)
        self._table(length + 1).add(table.items[row], keys, values, length)
        table.remove(row)

    def _table(self, length: int) -> Table[Item]:
        room = table_room(length)
        return self._tables.setdefault(room, Table(self._shape, room))

    def _drop_empty(self) -> None:
        self._tables = {room: table for room, table in self._tables.items() if table.items}
