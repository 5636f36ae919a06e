"""Messages to token ids, through the model's own chat template.

Does not know what the ids are for: serving, scoring and training all read messages the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from agents.errors import InputError, ModelUnavailable
from agents.schemas import Message


def render_messages(tokenizer: Any, messages: Sequence[Message], *, answer: bool) -> str:
    """Return the text the model reads; with `answer` it ends where the assistant's turn begins.

    Raises ModelUnavailable for a tokenizer without a template, InputError for messages it refuses.
    """
    if not tokenizer.chat_template:
        raise ModelUnavailable(
            f"The tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template.",
            "Use an instruction-tuned model, or add chat_template.jinja to its folder.",
        )
    from transformers.utils.chat_template_utils import jinja2

    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer)
    except jinja2.exceptions.TemplateError as error:
        raise InputError(
            f"The chat template of {tokenizer.name_or_path or 'this model'} refuses these messages "
            f"({', '.join(message.role for message in messages)}): {error}.",
            "Order the messages as this model was trained, for example user and assistant in turn.",
        ) from error
    return text


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the ids of the messages, ready for the assistant to answer."""
    return _encode(tokenizer, render_messages(tokenizer, messages, answer=True))


def assistant_spans(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Return the ids of a conversation and a mask that is true on the assistant's words.

    Each assistant turn is marked from its first word to its end token; what the template writes around
    it is not. Raises InputError for a conversation without an assistant turn, ModelUnavailable for a
    template that cannot be split into turns.
    """
    text = render_messages(tokenizer, messages, answer=False)
    cuts = [0]
    for index, message in enumerate(messages):
        if message.role == "assistant":
            cuts += _turn(tokenizer, text, messages, index)
    if len(cuts) == 1:
        raise InputError(
            f"None of the {len(messages)} messages is the assistant's.",
            "Give a conversation in which the assistant answers.",
        )
    ids: list[int] = []
    mask: list[bool] = []
    for number, (start, end) in enumerate(pairwise([*cuts, len(text)])):
        piece = _encode(tokenizer, text[start:end])
        ids += piece
        mask += [number % 2 == 1] * len(piece)
    return ids, mask


def encode_last_turn(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], int]:
    """Return the ids up to the end token of the last turn, and the index where the turn begins.

    Raises InputError unless the last message is the assistant's.
    """
    if not messages or messages[-1].role != "assistant":
        raise InputError(
            f"The last message is the {messages[-1].role if messages else 'nobody'}'s, not the assistant's.",
            "Scores are of an assistant's turn: end the messages with one.",
        )
    text = render_messages(tokenizer, messages, answer=False)
    start, end = _turn(tokenizer, text, messages, len(messages) - 1)
    prompt = _encode(tokenizer, text[:start])
    return prompt + _encode(tokenizer, text[start:end]), len(prompt)


def _turn(tokenizer: Any, text: str, messages: Sequence[Message], index: int) -> tuple[int, int]:
    """Return where the words of an assistant turn begin in the text, and where its end token ends."""
    before = render_messages(tokenizer, messages[:index], answer=True)
    through = render_messages(tokenizer, messages[: index + 1], answer=False)
    if not (text.startswith(through) and through.startswith(before)):
        raise ModelUnavailable(
            f"The chat template of {tokenizer.name_or_path or 'this model'} rewrites earlier turns, so the "
            f"assistant's words of turn {index + 1} cannot be told from the rest.",
            "Use a model whose template renders each turn on its own.",
        )
    mark = tokenizer.eos_token or ""
    at = through.rfind(mark, len(before)) if mark else -1
    return len(before), len(through) if at < 0 else at + len(mark)


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
