"""The in-process engine: answers do not depend on the batch, callers never hang, nothing is kept too long."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoint import write_tiny_checkpoint

from agents.chat import ChatDelta, ChatRequest, ModelAddress, ModelPlaces, Sampling, open_model
from agents.errors import ContextExceeded, InputError, ModelError, UnderstudyError
from agents.local.batch import MAX_ANSWERS, Batch
from agents.local.checkpoints import load_model
from agents.local.cores import choose_threads
from agents.local.engine import Engine, memory_shape
from agents.local.forward import ATTENTION
from agents.local.model import LocalModel
from agents.local.routing import Adapter, Router
from agents.local.tokens import encode_last_turn, encode_prompt
from agents.local.work import Generation
from agents.schemas import chat

WINDOW = 1024
PROMPTS = [chat(("user", "word " * count)) for count in (1, 3, 9, 30, 60, 2, 14, 100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), window=WINDOW)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    engine = Engine(folder, torch.float32)
    yield engine
    engine.close()


@pytest.fixture
def model(engine: Engine) -> LocalModel:
    return LocalModel(ModelAddress("local", "tiny"), engine)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ask(prompt: Any, **sampling: Any) -> ChatRequest:
    return ChatRequest(messages=prompt, sampling=Sampling(**{"temperature": 0, "max_tokens": 40, **sampling}))


def generate(reference: Any, engine: Engine, prompt: Any, tokens: int) -> str:
    ids = torch.tensor([encode_prompt(engine.tokenizer, prompt)])
    with torch.inference_mode():
        out = reference.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
        )
    text: str = engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


async def test_a_batch_writes_what_generate_writes(model: LocalModel, engine: Engine, reference: Any) -> None:
    answers = await asyncio.gather(*(model.complete(ask(prompt)) for prompt in PROMPTS))
    assert [a.text for a in answers] == [generate(reference, engine, p, 40).rstrip("�") for p in PROMPTS]


async def test_a_long_answer_outgrows_its_table_unharmed(
    model: LocalModel, engine: Engine, reference: Any
) -> None:
    answer = await model.complete(ask(PROMPTS[4], max_tokens=400))
    assert answer.usage.completion_tokens == 400
    assert answer.finish_reason == "length"
    assert answer.text == generate(reference, engine, PROMPTS[4], 400).rstrip("�")


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.8}])
async def test_an_answer_does_not_depend_on_the_batch(model: LocalModel, sampling: dict[str, float]) -> None:
    requests = [ask(prompt, seed=seed, **sampling) for seed, prompt in enumerate(PROMPTS)]
    alone = [(await model.complete(request)).text for request in requests]
    together = await asyncio.gather(*(model.complete(request) for request in requests * 3))
    assert [answer.text for answer in together] == alone * 3


async def test_more_requests_than_rows_are_all_answered(model: LocalModel) -> None:
    answers = await asyncio.gather(
        *(model.complete(ask(PROMPTS[i % 8], max_tokens=1 + i % 7)) for i in range(2 * MAX_ANSWERS + 5))
    )
    assert [a.usage.completion_tokens for a in answers] == [1 + i % 7 for i in range(2 * MAX_ANSWERS + 5)]


async def test_the_stream_joins_to_the_answer(model: LocalModel) -> None:
    request = ask(PROMPTS[2], temperature=1.0, seed=4, max_tokens=80)
    deltas = [delta async for delta in model.stream(request)]
    whole = await model.complete(request)
    assert len(deltas) > 10
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.answer is None for delta in deltas] == [True] * (len(deltas) - 1) + [False]
    assert deltas[-1].answer is not None
    assert deltas[-1].answer.text == whole.text


async def test_a_stop_string_ends_the_answer_before_it(model: LocalModel) -> None:
    free = await model.complete(ask(PROMPTS[1], max_tokens=60))
    stop = free.text[20:23]
    answer = await model.complete(ask(PROMPTS[1], max_tokens=60, stop=(stop,)))
    assert answer.text == free.text[: free.text.index(stop)]
    assert answer.finish_reason == "stop"


async def test_the_end_token_ends_the_answer(model: LocalModel, engine: Engine, reference: Any) -> None:
    ids = encode_prompt(engine.tokenizer, PROMPTS[1])
    usual = engine.stop_ids
    try:
        engine.stop_ids = usual | {int(reference(torch.tensor([ids])).logits[0, -1].argmax())}
        answer = await model.complete(ask(PROMPTS[1]))
    finally:
        engine.stop_ids = usual
    assert (answer.text, answer.finish_reason) == ("", "stop")
    assert answer.usage.completion_tokens == 1


async def test_the_window_bounds_prompt_and_answer(model: LocalModel) -> None:
    long = chat(("user", "x" * (WINDOW - 40)))
    room = WINDOW - model.count_tokens(long)
    answer = await model.complete(ask(long, max_tokens=500))
    assert 0 < room < 40
    assert (answer.usage.completion_tokens, answer.finish_reason) == (room, "length")
    with pytest.raises(ContextExceeded) as refusal:
        await model.complete(ask(chat(("user", "x" * WINDOW))))
    assert str(WINDOW) in str(refusal.value)
    assert str(model.count_tokens(chat(("user", "x" * WINDOW)))) in str(refusal.value)


async def test_scores_are_the_models_log_probabilities(
    model: LocalModel, engine: Engine, reference: Any
) -> None:
    talks = [(*prompt, *chat(("assistant", f"answer {i} " * (i + 1)))) for i, prompt in enumerate(PROMPTS)]
    scores = await asyncio.gather(*(model.score(talk) for talk in talks))
    for talk, score in zip(talks, scores, strict=True):
        ids, first = encode_last_turn(engine.tokenizer, talk)
        with torch.inference_mode():
            logs = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [logs[at - 1, ids[at]].item() for at in range(first, len(ids))]
        assert ids[-1] == engine.tokenizer.eos_token_id
        assert score.log_probabilities == pytest.approx(expected, abs=1e-4)


async def test_only_an_assistants_turn_is_scored(model: LocalModel) -> None:
    with pytest.raises(InputError, match="the user's"):
        await model.score(PROMPTS[0])


async def test_scores_and_answers_share_a_batch(model: LocalModel) -> None:
    talk = (*PROMPTS[7], *chat(("assistant", "well " * 60)))
    alone = (await model.score(talk)).log_probabilities
    answer = asyncio.create_task(model.complete(ask(PROMPTS[0], max_tokens=200)))
    scores = await asyncio.gather(*(model.score(talk) for _ in range(6)))
    assert (await answer).usage.completion_tokens == 200
    assert all(score.log_probabilities == alone for score in scores)


class Silent:
    """Waits for an answer, and keeps what it heard."""

    wants_pieces = True

    def __init__(self) -> None:
        self.gone = False
        self.heard: list[ChatDelta | UnderstudyError] = []

    def hear(self, news: ChatDelta | UnderstudyError) -> None:
        self.heard.append(news)


def test_work_that_nobody_waits_for_is_dropped_at_the_next_step(folder: Path, engine: Engine) -> None:
    reference = load_model(folder, torch.float32, attention=ATTENTION)
    cpu = torch.device("cpu")
    batch = Batch(reference, Router(cpu), memory_shape(reference.config, torch.float32, cpu))
    silent = [Silent() for _ in range(MAX_ANSWERS + 3)]
    for listener in silent:
        ids = encode_prompt(engine.tokenizer, PROMPTS[3])
        batch.add(
            Generation(
                ids,
                None,
                listener,
                sampling=Sampling(max_tokens=900),
                tokenizer=engine.tokenizer,
                stop_ids=frozenset(),
            )
        )
    with torch.inference_mode():
        for _ in range(4):
            batch.step()
        assert batch.busy
        for listener in silent[1:]:
            listener.gone = True
        heard = [len(listener.heard) for listener in silent]
        batch.step()
        assert batch.busy
        assert [len(listener.heard) for listener in silent[1:]] == heard[1:]
        silent[0].gone = True
        batch.step()
    assert not batch.busy


@pytest.mark.parametrize("asking", ["complete", "stream"])
async def test_whoever_goes_away_makes_room(model: LocalModel, engine: Engine, asking: str) -> None:
    async def wait() -> None:
        if asking == "complete":
            await model.complete(request)
        else:
            async for _ in model.stream(request):
                pass

    request = ask(PROMPTS[0], max_tokens=900)
    tasks = [asyncio.create_task(wait()) for _ in range(MAX_ANSWERS)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    answer = await model.complete(ask(PROMPTS[0], max_tokens=3))
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert answer.usage.completion_tokens == 3


async def test_a_failing_pass_reaches_its_callers_and_no_one_else(model: LocalModel, engine: Engine) -> None:
    name = next(iter(engine.layers))
    misfit = Adapter("misfit", 2, {name: (torch.ones(2, 3), torch.ones(5, 2))})
    broken = LocalModel(ModelAddress("local", "tiny", "misfit"), engine, misfit)
    with pytest.raises(ModelError, match="failed while computing"):
        await broken.complete(ask(PROMPTS[0]))
    assert (await model.complete(ask(PROMPTS[0], max_tokens=3))).usage.completion_tokens == 3


async def test_values_that_are_not_finite_are_an_error_for_that_answer_only(
    model: LocalModel, engine: Engine
) -> None:
    name = next(iter(engine.layers))
    out_size, in_size = engine.layers[name]
    wild = Adapter("wild", 2, {name: (torch.full((2, in_size), 1e38), torch.full((out_size, 2), 1e38))})
    others = asyncio.gather(*(model.complete(ask(prompt)) for prompt in PROMPTS[:3]))
    with pytest.raises(ModelError, match="adapter wild"):
        await LocalModel(ModelAddress("local", "tiny", "wild"), engine, wild).complete(ask(PROMPTS[0]))
    alone = [(await model.complete(ask(prompt))).text for prompt in PROMPTS[:3]]
    assert [answer.text for answer in await others] == alone


async def test_a_closed_engine_says_so(folder: Path) -> None:
    engine = Engine(folder, torch.float32)
    model = LocalModel(ModelAddress("local", "tiny"), engine)
    waiting = asyncio.create_task(model.complete(ask(PROMPTS[0], max_tokens=900)))
    await asyncio.sleep(0.05)
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        await waiting
    with pytest.raises(ModelError, match="closed"):
        await model.complete(ask(PROMPTS[0]))


def test_a_process_ends_in_the_middle_of_an_answer(folder: Path) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from agents.chat import *; from agents.schemas import chat\n"
        f"places = ModelPlaces(cache=Path('unused'), adapter_folder=Path)\n"
        f"model = open_model('local/{folder}', places)\n"
        "request = ChatRequest(messages=chat(('user', 'go')), sampling=Sampling(max_tokens=900))\n"
        "async def main():\n"
        "    async for delta in model.stream(request):\n"
        "        print('first'); sys.exit(3)\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "first\n", "")


def test_one_checkpoint_has_one_engine(folder: Path, tmp_path: Path) -> None:
    places = ModelPlaces(cache=tmp_path, adapter_folder=tmp_path.joinpath)
    one, other = open_model(f"local/{folder}", places), open_model(f"local/{folder}", places)
    assert isinstance(one, LocalModel)
    assert isinstance(other, LocalModel)
    assert one.engine is other.engine
    assert (one.address, one.context_window) == (f"local/{folder}", WINDOW)
    one.engine.close()


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, agents.local; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@given(st.integers(1, 16), st.floats(0, 64))
def test_threads_leave_room_for_others(cores: int, others: float) -> None:
    threads = choose_threads(cores, others=others)
    assert 1 <= threads <= cores
    assert threads == 1 or threads + others <= cores + 0.36


@pytest.mark.model
async def test_the_embedded_model_knows_the_capital_of_france(model_cache: Path) -> None:
    embedded = open_model("local/smollm2-135m", ModelPlaces(cache=model_cache, adapter_folder=Path))
    question = chat(("user", "What is the capital of France?"))
    answer = await embedded.complete(ChatRequest(messages=question, sampling=Sampling(temperature=0)))
    right, wrong = [
        sum((await embedded.score((*question, *chat(("assistant", text))))).log_probabilities)
        for text in ("The capital of France is Paris.", "The capital of France is Rome.")
    ]
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert right > wrong + 1
    assert embedded.context_window == 8192


@pytest.mark.model
async def test_in_half_precision_too_an_answer_does_not_depend_on_the_batch(model_cache: Path) -> None:
    embedded = open_model("local/smollm2-135m", ModelPlaces(cache=model_cache, adapter_folder=Path))
    requests = [
        ask(chat(("user", "Tell me about the sea. " * length)), temperature=0.9, seed=length, max_tokens=12)
        for length in (1, 4, 30)
    ]
    alone = [(await embedded.complete(request)).text for request in requests]
    together = await asyncio.gather(*(embedded.complete(request) for request in requests * 3))
    assert [answer.text for answer in together] == alone * 3
