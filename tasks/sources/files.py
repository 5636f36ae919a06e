"""Conversations in files: JSONL in the OpenAI chat format, with an optional category.

Does not know who is imitated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from agents.errors import DatasetInvalid
from agents.schemas import Conversation

REMEDY = 'Each line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}.'


def read_conversations(path: Path) -> Iterator[Conversation]:
    """Yield the conversations of a file, one a line.

    Raises DatasetInvalid, naming file and line, for a line that is not a conversation ending in an
    assistant turn.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _read(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetInvalid(f"{path} cannot be read: {error}.", "Give a UTF-8 text file.") from error


def _read(line: str, where: str) -> Conversation:
    try:
        fields = json.loads(line)
        conversation = Conversation(
            category=fields.get("category", "other"), messages=tuple(fields["messages"])
        )
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        raise DatasetInvalid(f"{where}: not a conversation ({reason}).", REMEDY) from error
    if conversation.messages[-1].role != "assistant" or not conversation.messages[-1].content.strip():
        raise DatasetInvalid(f"{where}: the last turn is not an answer by the assistant.", REMEDY)
    return conversation
