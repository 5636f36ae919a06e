"""Held-out prompts: real conversations that were kept back, to be answered again and compared.

Does not know how the split was made.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from agents.errors import DatasetInvalid
from agents.schemas import Frozen, Messages


class HeldOut(Frozen):
    """A held-out conversation: what was asked, and what the person really answered."""

    origin: str
    category: str
    messages: Messages

    @property
    def prompt(self) -> Messages:
        """Return everything before the last answer."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """Return the person's own last answer."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """Return the turn that the last answer answers."""
        return self.messages[-2].content


def read_held_out(path: Path) -> list[HeldOut]:
    """Return the held-out conversations of a dataset's file in order.

    Raises DatasetInvalid when the file is gone or damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return [HeldOut.model_validate_json(line) for line in file]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise DatasetInvalid(
            f"The held-out conversations {path} cannot be read: {reason}.",
            "`understudy finetune PERSONA` writes the file again from the same examples.",
        ) from error
