"""A third party's training backend, as a plugin: a job is what the test wrote into its folder."""

from pathlib import Path

from agents.errors import ModelUnavailable
from tasks.training.base import Hyperparameters, JobState, TrainingJob


class ScriptedTraining:
    """Says what `state.json` says; every submission is a line in `submitted`."""

    recipe = Hyperparameters()

    def submit(self, job: TrainingJob) -> str:
        job.folder.mkdir(parents=True, exist_ok=True)
        if (job.folder / "refuse").exists():
            raise ModelUnavailable("The backend is closed.", "Come back later.")
        with (job.folder / "submitted").open("a") as file:
            file.write("submitted\n")
        state = job.folder / "state.json"
        if not state.exists() or JobState.model_validate_json(state.read_text()).interrupted:
            state.write_text(JobState(status="running", total_steps=10).model_dump_json())
        return f"scripted-{job.id}"

    def poll(self, job: TrainingJob, backend_id: str) -> JobState:
        state = job.folder / "state.json"
        return (
            JobState.model_validate_json(state.read_text()) if state.exists() else JobState(status="queued")
        )

    def cancel(self, job: TrainingJob, backend_id: str) -> None:
        say(job.folder, status="cancelled")


def say(folder: Path, **state: object) -> None:
    """Write what the backend says of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(JobState.model_validate(state).model_dump_json())


def submissions(folder: Path) -> int:
    """Return how often a job was submitted."""
    path = folder / "submitted"
    return len(path.read_text().splitlines()) if path.exists() else 0
