"""From messages to ids, from logits to tokens, from tokens to text."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoint import write_tiny_checkpoint

from agents.chat import Sampling
from agents.errors import InputError, ModelUnavailable
from agents.local.checkpoints import load_tokenizer
from agents.local.kv import GRAIN, PromptMemory, Shape
from agents.local.pieces import TextStream
from agents.local.prefixes import KEPT_TOKENS, Prefixes
from agents.local.routing import Adapter
from agents.local.sampling import Sampler, draw_tokens
from agents.local.tokens import assistant_spans, encode_last_turn, encode_prompt, render_messages
from agents.schemas import chat

TALK = chat(
    ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?"), ("assistant", "So.")
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def test_every_assistant_turn_is_marked_with_its_end(tokenizer: Any) -> None:
    ids, mask = assistant_spans(tokenizer, TALK)
    marked = [token for token, own in zip(ids, mask, strict=True) if own]
    assert tokenizer.decode(marked) == "Hello!<|end|>So.<|end|>"
    assert tokenizer.decode(ids) == render_messages(tokenizer, TALK, answer=False)


def test_the_last_turn_begins_where_an_answer_would(tokenizer: Any) -> None:
    ids, first = encode_last_turn(tokenizer, TALK)
    assert ids[:first] == encode_prompt(tokenizer, TALK[:-1])
    assert tokenizer.decode(ids[first:]) == "So.<|end|>"


def test_a_conversation_without_an_answer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="None of the 2"):
        assistant_spans(tokenizer, TALK[:2])
    with pytest.raises(InputError, match="nobody"):
        encode_last_turn(tokenizer, ())


def test_a_tokenizer_without_a_template_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelUnavailable, match="no chat template"):
        encode_prompt(load_tokenizer(tmp_path), TALK)


def test_messages_that_the_template_refuses_are_an_input_error(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('users only') }}")
    with pytest.raises(InputError, match="users only"):
        encode_prompt(load_tokenizer(tmp_path), TALK)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    )
    with pytest.raises(ModelUnavailable, match="rewrites earlier turns"):
        assistant_spans(load_tokenizer(tmp_path), TALK)


def pieces_of(stream: TextStream, tokenizer: Any, text: str) -> list[str]:
    pieces: list[str] = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()]


@given(st.text(st.characters(exclude_characters="�", exclude_categories=("Cs",)), max_size=40))
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer: Any, text: str) -> None:
    stream = TextStream(tokenizer, ())
    pieces = pieces_of(stream, tokenizer, text)
    assert "".join(pieces) == stream.text == text
    assert not any("�" in piece for piece in pieces)


@given(st.text("ab.", max_size=30), st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_part_of_a_stop_string_is_ever_released(tokenizer: Any, text: str, stop: list[str]) -> None:
    stream = TextStream(tokenizer, stop)
    released = ""
    for piece in pieces_of(stream, tokenizer, text):
        released += piece
        ends = [at + len(word) for word in stop if (at := text.find(word)) >= 0]
        assert not ends or len(released) <= min(end for end in ends) - 1
    first_end = min((text.find(w) + len(w) for w in stop if w in text), default=len(text))
    seen = text[:first_end]
    expected = min((seen.find(w) for w in stop if w in seen), default=len(text))
    assert stream.stopped == any(word in text for word in stop)
    assert released == stream.text == text[:expected]


def test_half_a_character_at_the_end_is_dropped(tokenizer: Any) -> None:
    stream = TextStream(tokenizer, ())
    ids = tokenizer("ab🎭", add_special_tokens=False)["input_ids"]
    assert "".join([*(stream.push(token) for token in ids[:-1]), stream.finish()]) == "ab"


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30))
def test_temperature_zero_takes_the_likeliest(values: list[float]) -> None:
    assert draw_tokens(torch.tensor([values]), [Sampler(Sampling(temperature=0))]) == [
        int(torch.tensor(values).argmax())
    ]


@given(st.integers(0, 2**32), st.floats(0.05, 1.0), st.integers(2, 40))
def test_a_draw_stays_in_the_nucleus(seed: int, top_p: float, size: int) -> None:
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * 3
    probabilities = logits.softmax(-1)[0]
    token = draw_tokens(logits, [Sampler(Sampling(temperature=1, top_p=top_p, seed=seed))])[0]
    likelier = probabilities[probabilities > probabilities[token]].sum().item()
    assert likelier < top_p + 1e-6


@pytest.mark.parametrize("top_p", [1.0, 0.999])
def test_draws_follow_the_probabilities(top_p: float) -> None:
    shares = (0.5, 0.3, 0.15, 0.05)
    sampler = Sampler(Sampling(temperature=1, top_p=top_p, seed=7))
    drawn = Counter(draw_tokens(logits_of(*shares), [sampler])[0] for _ in range(4000))
    for token, share in enumerate(shares):
        assert drawn[token] / 4000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))


def test_temperature_sharpens_as_defined() -> None:
    sampler = Sampler(Sampling(temperature=0.5, seed=3))
    drawn = Counter(draw_tokens(logits_of(0.6, 0.4), [sampler])[0] for _ in range(4000))
    assert drawn[0] / 4000 == pytest.approx(0.36 / 0.52, abs=0.03)


def test_a_row_draws_the_same_in_any_company() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    settings = [Sampling(temperature=t, top_p=p, seed=i) for i, (t, p) in enumerate([(1, 1), (0.7, 0.9)] * 2)]
    settings.append(Sampling(temperature=0))
    alone = [draw_tokens(logits[i : i + 1], [Sampler(s)])[0] for i, s in enumerate(settings)]
    assert draw_tokens(logits, [Sampler(s) for s in settings]) == alone


@pytest.mark.parametrize(
    ("penalties", "expected"),
    [
        ({}, [0, 0, 0, 0]),
        ({"presence_penalty": 1.5}, [0, 1, 0, 0]),
        ({"frequency_penalty": 1.0}, [0, 1, 0, 1]),
        ({"frequency_penalty": -1.0}, [0, 0, 0, 0]),
    ],
)
def test_penalties_are_subtracted_as_openai_defines_them(
    penalties: dict[str, float], expected: list[int]
) -> None:
    sampler = Sampler(Sampling(temperature=0, **penalties))
    logits = torch.tensor([[2.0, 1.2, -5.0]])
    assert [draw_tokens(logits, [sampler])[0] for _ in range(4)] == expected


def test_a_known_beginning_is_taken_over_in_whole_grains() -> None:
    shape = Shape(layers=1, heads=1, width=2, dtype=torch.float32, device=torch.device("cpu"))
    prefixes = Prefixes()
    known = PromptMemory(shape, 200)
    known.keys[:] = 7
    prefixes.remember(range(200), None, known)

    def taken(ids: list[int], adapter: Adapter | None = None) -> int:
        memory = PromptMemory(shape, len(ids))
        prefixes.start(ids, adapter, len(ids) - 1, memory)
        assert bool((memory.keys[:, :, : memory.length] == 7).all())
        return memory.length

    assert taken([*range(150), 0, 0]) == 2 * GRAIN
    assert taken(list(range(GRAIN))) == 0
    assert taken(list(range(2, 200))) == 0
    assert taken(list(range(150)), Adapter("other", 1, {})) == 0
    prefixes.remember(range(-KEPT_TOKENS, 0), None, PromptMemory(shape, 1))
    assert taken(list(range(150))) == 0
