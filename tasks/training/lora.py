"""The trainer process: teach a LoRA adapter the assistant's turns of a job; killed, it continues.

Does not know who started it or who watches: it reads its job from a folder and leaves everything there.
Run as `python -m tasks.training.lora FOLDER`.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from agents.errors import DatasetInvalid, TrainingFailed, UnderstudyError
from tasks.sources.files import read_conversations
from tasks.storage.objects import remove_folder
from tasks.training.base import Hyperparameters, TrainingJob
from tasks.training.folder import JobFolder, not_writable
from tasks.training.learner import Learner
from tasks.training.pace import CheckpointClock, learning_rate
from tasks.training.packing import Example, Packed, Step, cut, plan_steps, plan_validation
from tasks.training.reporting import Progress, Reporter

if TYPE_CHECKING:
    from peft import PeftModel

_LOCK_SECONDS = 5.0


def main() -> int:
    """Train the job of the folder named on the command line; return the exit code."""
    folder = JobFolder(Path(sys.argv[1]))
    try:
        with folder.trainer_lock().acquire(timeout=_LOCK_SECONDS):
            return run(folder)
    except Timeout:
        sys.stdout.write("Another trainer works on this job; this one leaves it alone.\n")
        return 0


def run(folder: JobFolder) -> int:
    """Train the job of a folder and write how it ended; the caller holds the trainer's lock."""
    reporter = Reporter(folder)
    try:
        train(folder, reporter)
    except UnderstudyError as error:
        reporter.end("error", str(error))
        return error.exit_code
    reporter.end("completed")
    folder.drop_checkpoint()
    return 0


def train(folder: JobFolder, reporter: Reporter) -> None:
    """Train from the last checkpoint, or the beginning, until the adapter is in its place.

    Raises DatasetInvalid, ModelUnavailable, StorageError or TrainingFailed.
    """
    from peft.helpers import disable_input_dtype_casting

    from agents.local.checkpoints import load_tokenizer, prepare_checkpoint

    job = folder.read_job()
    if job is None:
        raise TrainingFailed(f"There is no job in {folder.path}.", "Submit the job again.")
    base = prepare_checkpoint(job.base_model, job.cache)
    tokenizer = load_tokenizer(base)
    settings = job.hyperparameters
    steps = plan_steps(read_examples(tokenizer, job.train_file, settings, reporter), settings)
    validation = None
    if job.validation_file is not None:
        examples = read_examples(tokenizer, job.validation_file, settings, reporter)
        validation = plan_validation(examples, settings)
    model = build_model(base, job)
    with disable_input_dtype_casting(model):
        learn(Learner(model, settings), steps, validation, reporter)
    save_adapter(model, folder.adapter)


def read_examples(tokenizer: Any, file: Path, settings: Hyperparameters, reporter: Reporter) -> list[Example]:
    """Return the conversations of a file as tokens, cut to the sequence length; tell how many were cut.

    Raises DatasetInvalid for a malformed line, an empty file, or when nothing is left to learn.
    """
    from agents.local.tokens import assistant_spans

    spans = (assistant_spans(tokenizer, conversation.messages) for conversation in read_conversations(file))
    whole = [Example(tuple(ids), tuple(learned)) for ids, learned in spans]
    kept = [example for example in (cut(e, settings.sequence_tokens) for e in whole) if example]
    if not kept:
        raise DatasetInvalid(
            f"{file} has {len(whole)} conversations, none with an answer in the first "
            f"{settings.sequence_tokens} tokens.",
            "Give conversations in which the assistant answers, or raise sequence_tokens.",
        )
    long = sum(len(example.ids) > settings.sequence_tokens for example in whole)
    if long:
        reporter.event(
            f"{long} of {len(whole)} conversations in {file.name} were cut to {settings.sequence_tokens} "
            f"tokens; {len(whole) - len(kept)} of them had no answer left and were dropped."
        )
    return kept


def build_model(base: Path, job: TrainingJob) -> PeftModel:
    """Return the base with a fresh adapter on all its linear layers; the seed decides its weights."""
    import torch
    from peft import LoraConfig, get_peft_model

    from agents.local.checkpoints import load_model
    from agents.local.engine import best_device, best_dtype

    device = best_device()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=job.base_model,
        r=job.hyperparameters.rank,
        lora_alpha=job.hyperparameters.alpha,
        lora_dropout=job.hyperparameters.dropout,
        target_modules="all-linear",
    )
    model = load_model(base, best_dtype(device))
    model.name_or_path = job.base_model
    torch.manual_seed(job.hyperparameters.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return get_peft_model(model, config).to(device)


def learn(learner: Learner, steps: list[Step], validation: list[Packed] | None, reporter: Reporter) -> None:
    """Take the steps that are not behind yet, keeping a checkpoint now and then."""
    folder = reporter.folder
    checkpoint = folder.read_checkpoint()
    before = learner.restore(checkpoint) if checkpoint else Progress()
    reporter.begin(before, len(steps))
    reporter.event(f"{f'Continued after step {before.step}' if before.step else 'Started'}: {learner}.")
    clock = CheckpointClock(last=time.monotonic())
    for number, step in enumerate(steps[before.step :], before.step):
        began = time.monotonic()
        loss = learner.step(step, learning_rate(number, len(steps), learner.settings))
        reporter.step(loss, time.monotonic() - began, step.tokens)
        if step.epoch_ends and validation:
            reporter.validated(learner.measure(validation))
        if clock.is_due(began := time.monotonic()):
            folder.write_checkpoint(learner.checkpoint(reporter.progress()))
            clock.kept(began, time.monotonic())


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter in PEFT's format, so that the folder is whole or not there (StorageError)."""
    partial = folder.with_name(f"{folder.name}.partial")
    for remains in (partial, folder):
        remove_folder(remains)
    try:
        model.save_pretrained(str(partial), save_embedding_layers=False)
        partial.rename(folder)
    except OSError as error:
        raise not_writable(folder, error) from error


if __name__ == "__main__":
    sys.exit(main())
