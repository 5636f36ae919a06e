"""Commands of operation: what is going on, and registering all of it with a Prefect server.

Does not know what the flows do.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deployments.cli.app import AsJson, OneJob, app, home_store
from deployments.cli.console import say, say_json, say_table

JobName = Annotated[str, typer.Argument(metavar="JOB", help="a job's id, from `understudy status`")]


@app.command()
def status(
    job: OneJob = None,
    watch: Annotated[bool, typer.Option("--watch", help="show it anew until Ctrl-C")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show personas, jobs, runs, and what happens next; with a job's id its events and losses."""
    from deployments.cli.listings import job_details
    from deployments.cli.overview import show_overview

    if job:
        details = job_details(home_store(), job)
        say_json(details) if as_json else _say_details(details)
        return
    show_overview(home_store(), every=interval if watch else None, as_json=as_json)


@app.command()
def card(
    name: Annotated[str, typer.Argument(metavar="RUN_OR_DATASET", help="a run's name or a dataset's id")],
    as_json: AsJson = False,
) -> None:
    """Show the data card of a run or dataset: what is in it, what was refused, what it cost, its limits."""
    from tasks.card import find_card
    from tasks.card_text import card_text

    found = find_card(home_store(), name)
    say_json(found.model_dump(mode="json")) if as_json else say(card_text(found))


@app.command()
def cancel(job: JobName) -> None:
    """Stop a job; its round of training ends with it."""
    from deployments.launch import telling
    from tasks.watch import cancel_job

    with telling():
        report = cancel_job(home_store(), job)
    say(f"{report.id} is {report.status} at step {report.step} of {report.total_steps}.")


@app.command()
def resume(job: JobName) -> None:
    """Continue a job that was cancelled or failed, from its last checkpoint where the backend keeps one."""
    from tasks.finetune import resume_job

    resume_job(home_store(), job)
    say(f"{job} goes on; `understudy watch {job} --follow` shows how.")


@app.command()
def deploy(as_json: AsJson = False) -> None:
    """Register deployments, schedules and automations with the Prefect server of PREFECT_API_URL."""
    from deployments.registration import register

    done = register(home_store().settings.notify_url)
    if as_json:
        say_json(done.model_dump(mode="json"))
        return
    say(f"{len(done.deployments)} deployments on {done.server}: {', '.join(done.deployments)}.")
    say_table([{"automation": name, "": what} for name, what in done.automations.items()], empty="none")
    say(f"Notifications are {done.notifications}.")
    say(f"Next: `make worker`, or prefect worker start --pool {done.pool}.")


def _say_details(details: dict[str, Any]) -> None:
    for name, value in details.items():
        if isinstance(value, list):
            say(f"\n{name}")
            say_table(value, empty="none")
        else:
            say(f"{name:16} {'' if value is None else value}")
