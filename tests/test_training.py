"""The local trainer on a model of a few thousand weights: what it learns, and that it continues exactly."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.chat import ModelPlaces, open_model
from agents.errors import TrainingFailed
from agents.schemas import chat
from tasks.training.base import TERMINAL, Hyperparameters, JobState, TrainingJob
from tasks.training.folder import JobFolder
from tasks.training.local import LocalTraining
from tasks.training.packing import Example, pack, plan_steps, plan_validation
from tasks.training.processes import is_alive
from tasks.training.reporting import Progress, Reporter

TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
SYSTEM = "You are Jamie, who manages these flats."
TALKS = [
    chat(("system", SYSTEM), ("user", f"Flat {n}: the {thing} broke."), ("assistant", f"On it: {thing} {n}!"))
    for n, thing in enumerate(["tap", "lift", "lamp", "lock", "door", "bell", "oven", "sink"])
]
QUICK = Hyperparameters(epochs=2, learning_rate=3e-2, rank=4, alpha=8, sequence_tokens=256, batch_sequences=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a base of 2 layers that reads bytes, in the layout of any other checkpoint."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    words = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> Callable[..., TrainingJob]:
    lines = [json.dumps({"messages": [m.model_dump() for m in talk]}) for talk in TALKS]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:6]) + "\n")
    (tmp_path / "validation.jsonl").write_text("\n".join(lines[6:]) + "\n")

    def make(name: str, **settings: Any) -> TrainingJob:
        return TrainingJob(
            id=name,
            persona="jamie",
            base_model=str(base),
            train_file=tmp_path / "train.jsonl",
            validation_file=tmp_path / "validation.jsonl",
            hyperparameters=QUICK.model_copy(update=settings),
            folder=tmp_path / name,
            cache=tmp_path / "cache",
        )

    return make


@pytest.fixture
def examples(base: Path) -> list[Example]:
    from agents.local.checkpoints import load_tokenizer
    from agents.local.tokens import assistant_spans

    spans = [assistant_spans(load_tokenizer(base), talk) for talk in TALKS]
    return [Example(tuple(ids), tuple(learned)) for ids, learned in spans]


def tiny_learner(job: TrainingJob, *, precise: bool = False) -> Any:
    from tasks.training.learner import Learner
    from tasks.training.lora import build_model

    model = build_model(Path(job.base_model), job)
    return Learner(model.float() if precise else model, job.hyperparameters)


def run_here(job: TrainingJob) -> JobState:
    from tasks.training.lora import run

    folder = JobFolder(job.folder)
    folder.submit_lock()
    folder.write_job(job)
    run(folder)
    return LocalTraining().poll(job, job.id)


def adapter_weights(job: TrainingJob) -> dict[str, Any]:
    from safetensors.torch import load_file

    weights: dict[str, Any] = load_file(job.folder / "adapter" / "adapter_model.safetensors")
    return weights


def wait_for(job: TrainingJob, done: Callable[[JobState], bool]) -> JobState:
    for _ in range(1200):
        state = LocalTraining().poll(job, job.id)
        if done(state):
            return state
        time.sleep(0.1)
    raise AssertionError(f"still {state.status} at step {state.step}: {state.error}")


def test_only_the_assistants_words_are_learned(base: Path, examples: list[Example]) -> None:
    from agents.local.checkpoints import load_tokenizer

    labels = pack(examples[:2], 0, 512).labels
    assert load_tokenizer(base).decode(labels) == "On it: tap 0!</s>On it: lift 1!</s>"


def test_what_was_asked_does_not_change_what_is_learned_from(
    make_job: Callable[..., TrainingJob], examples: list[Example]
) -> None:
    import torch

    learner = tiny_learner(make_job("job"), precise=True)
    packed = pack(examples[:1], 0, 256)
    logits = learner.model(input_ids=torch.tensor([packed.ids])).logits[0]
    told = torch.log_softmax(logits, -1)[list(packed.rows), list(packed.labels)]
    assert learner.measure([packed]) == pytest.approx(-told.mean().item(), rel=1e-5)


def test_packed_conversations_teach_what_they_teach_alone(
    make_job: Callable[..., TrainingJob], examples: list[Example]
) -> None:
    """The gradients of one packed sequence are those of the same conversations one by one."""
    import torch

    learner = tiny_learner(make_job("job"), precise=True)
    gradients = []
    together = plan_validation(examples, Hyperparameters(sequence_tokens=512))
    alone = [pack([example], 0, 160) for example in examples]
    assert len(together) < len(alone)
    for sequences in (together, alone):
        learner.model.zero_grad()
        torch.autograd.backward(torch.stack([learner.loss(sequence) for sequence in sequences]).sum())
        gradients.append([weight.grad.clone() for weight in learner.trained.values()])
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_adapters_are_float32_on_every_linear_layer_and_nothing_else_moves(
    make_job: Callable[..., TrainingJob], examples: list[Example]
) -> None:
    import torch

    learner = tiny_learner(make_job("job"))
    layers = {name.split(".lora_")[0].split(".")[-1] for name in learner.trained}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {weight.dtype for weight in learner.trained.values()} == {torch.float32}
    frozen = {n: w.clone() for n, w in learner.model.named_parameters() if n not in learner.trained}
    learner.step(plan_steps(examples, QUICK)[0], 1e-2)
    assert all(torch.equal(w, frozen[n]) for n, w in learner.model.named_parameters() if n in frozen)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_learner_restored_from_a_checkpoint_goes_on_to_the_last_bit(
    make_job: Callable[..., TrainingJob], examples: list[Example], dropout: float
) -> None:
    import torch

    job = make_job("job", epochs=3, dropout=dropout)
    steps = plan_steps(examples, job.hyperparameters)
    unbroken = tiny_learner(job)
    for number, step in enumerate(steps):
        unbroken.step(step, 1e-2)
        if number == 2:
            checkpoint = unbroken.checkpoint(Progress(step=3, trained_tokens=30, seconds=1.5))
    resumed = tiny_learner(job)
    assert resumed.restore(checkpoint) == Progress(step=3, trained_tokens=30, seconds=1.5)
    for step in steps[3:]:
        resumed.step(step, 1e-2)
    assert len(steps) > 4
    for name, weight in unbroken.trained.items():
        assert torch.equal(weight, resumed.trained[name]), name


def test_a_loss_that_explodes_ends_the_training(
    make_job: Callable[..., TrainingJob], examples: list[Example]
) -> None:
    import torch

    learner = tiny_learner(make_job("job"))
    with torch.no_grad():
        next(iter(learner.trained.values())).fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="learning rate"):
        learner.step(plan_steps(examples, QUICK)[0], 1e-2)


def test_a_job_ends_with_an_adapter_for_its_base(make_job: Callable[..., TrainingJob], base: Path) -> None:
    job = make_job("job", epochs=15)
    state = run_here(job)
    assert (state.status, state.error, state.adapter) == ("completed", None, job.folder / "adapter")
    config = json.loads((job.folder / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, str(base))
    train = [point.loss for point in state.losses if point.split == "train"]
    held_out = [point for point in state.losses if point.split == "validation"]
    assert train[-1] < train[0] - 1.0
    assert len(train) == state.step == state.total_steps
    assert len(held_out) == 15
    assert held_out[-1].loss < held_out[0].loss
    assert state.trained_tokens > 15 * 6 * len(SYSTEM)
    assert not (job.folder / "checkpoint.pt").exists()


async def test_the_adapter_answers_in_serving_as_it_was_trained(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job("job", epochs=15)
    trained = [point.loss for point in run_here(job).losses if point.split == "validation"]
    places = ModelPlaces(cache=job.cache, adapter_folder=lambda name: job.folder / "adapter")
    losses = []
    for address in (f"local/{job.base_model}", f"local/{job.base_model}@job"):
        model = open_model(address, places)
        told = [p for talk in TALKS[6:] for p in (await model.score(talk)).log_probabilities]
        losses.append(-sum(told) / len(told))
    assert losses[1] == pytest.approx(trained[-1], rel=0.02)
    assert losses[0] > losses[1] + 1.0


def test_a_job_that_cannot_be_done_says_why(make_job: Callable[..., TrainingJob]) -> None:
    state = run_here(make_job("job", sequence_tokens=64))
    assert state.status == "error"
    assert "sequence_tokens" in (state.error or "")
    assert state.adapter is None


def test_long_conversations_are_cut_and_told(base: Path, tmp_path: Path) -> None:
    from agents.local.checkpoints import load_tokenizer
    from tasks.training.lora import read_examples

    talks = [
        *TALKS,
        chat(("user", "hm" * 200), ("assistant", "Yes.")),
        chat(("user", "?"), ("assistant", "!" * 300)),
    ]
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps({"messages": [m.model_dump() for m in t]}) + "\n" for t in talks))
    (tmp_path / "job").mkdir()
    reporter = Reporter(JobFolder(tmp_path / "job"))
    kept = read_examples(load_tokenizer(base), file, Hyperparameters(sequence_tokens=256), reporter)
    assert len(kept) == len(TALKS) + 1
    assert max(len(example.ids) for example in kept) == 256
    assert "2 of 10 conversations" in reporter.folder.events()[-1].message


@pytest.mark.slow
def test_a_killed_trainer_continues_to_the_same_adapter(make_job: Callable[..., TrainingJob]) -> None:
    import torch

    whole, broken = make_job("whole", epochs=60), make_job("broken", epochs=60)
    backend = LocalTraining()
    backend.submit(whole)
    wait_for(whole, lambda state: state.status in TERMINAL)
    backend.submit(broken)
    wait_for(broken, lambda state: state.step > 20)
    process = JobFolder(broken.folder).read_process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    killed = wait_for(broken, lambda state: state.status in TERMINAL)
    assert killed.status == "error"
    assert 20 < killed.step < killed.total_steps
    backend.submit(broken)
    ended = wait_for(broken, lambda state: state.status in TERMINAL)
    assert ended.status == "completed"
    assert any(event.message.startswith("Continued after step") for event in ended.events)
    assert ended.losses == backend.poll(whole, "").losses
    expected, found = adapter_weights(whole), adapter_weights(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    backend.submit(broken)
    assert backend.poll(broken, "") == ended


@pytest.mark.slow
def test_two_submitters_start_one_trainer_which_outlives_them(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job("job", epochs=100)
    code = (
        "import sys; from tasks.training.local import LocalTraining; "
        "from tasks.training.base import TrainingJob; "
        "print(LocalTraining().submit(TrainingJob.model_validate_json(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, job.model_dump_json()]
    submitters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [submitter.communicate()[0] for submitter in submitters] == ["job\n", "job\n"]
    state = wait_for(job, lambda state: state.step > 3)
    assert state.status == "running"
    assert [event.message.split(":")[0] for event in state.events] == ["Started"]
    process = JobFolder(job.folder).read_process()
    assert process is not None
    assert is_alive(process)
    LocalTraining().cancel(job, job.id)
    assert not is_alive(process)
    cancelled = LocalTraining().poll(job, job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.adapter is None


@pytest.mark.slow
def test_a_second_trainer_leaves_the_first_alone(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job("job")
    folder = JobFolder(job.folder)
    folder.submit_lock()
    folder.write_job(job)
    with folder.trainer_lock():
        command = [sys.executable, "-m", "tasks.training.lora", str(job.folder)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Another trainer" in found.stdout
    assert folder.read_state() is None
