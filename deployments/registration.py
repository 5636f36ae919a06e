"""Register everything with a running Prefect server: work pool, deployments, automations, notifications.

Does not know what the flows do. Doing it again changes what changed and adds nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agents.errors import InputError, StorageError
from agents.schemas import Frozen
from deployments.launch import check_answers

if TYPE_CHECKING:
    from prefect import PrefectClient
    from prefect.client.schemas.objects import BlockDocument

POOL = "understudy"
BLOCK = "understudy-notifications"
AUTOMATIONS = Path(__file__).parent / "automations.yaml"
PREFECT_YAML = Path(__file__).parent.parent / "prefect.yaml"
SLACK = "https://hooks.slack.com/"


class Registration(Frozen):
    """What was registered; automations are by name, with what was done to each."""

    server: str
    pool: str
    deployments: tuple[str, ...]
    automations: dict[str, str]
    notifications: str


def register(notify_url: str | None) -> Registration:
    """Register prefect.yaml and automations.yaml with the server that PREFECT_API_URL names.

    Raises InputError without PREFECT_API_URL or for a notification address that is none, StorageError when
    the server does not answer or refuses a deployment.
    """
    server = os.environ.get("PREFECT_API_URL")
    if not server:
        raise InputError(
            "There is no Prefect server to deploy to.",
            "Start one (`make server`) and set PREFECT_API_URL, for example http://127.0.0.1:4200/api.",
        )
    if notify_url and not notify_url.startswith(("http://", "https://")):
        raise InputError(
            f"UNDERSTUDY_NOTIFY_URL is no web address: {notify_url!r}.", "Give a webhook's http(s) address."
        )
    check_answers(server)
    asyncio.run(_make_pool())
    names = _deploy()
    done = asyncio.run(_automate(notify_url))
    return Registration(
        server=server,
        pool=POOL,
        deployments=names,
        automations=done,
        notifications="on" if notify_url else "off: set UNDERSTUDY_NOTIFY_URL and deploy again",
    )


async def _make_pool() -> None:
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


def _deploy() -> tuple[str, ...]:
    """Register every deployment of prefect.yaml and return their names, `flow/deployment`."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=PREFECT_YAML.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(
            f"Prefect refused the deployments: {(done.stderr or done.stdout).strip()[-500:]}",
            f"Mend {PREFECT_YAML.name} or the server, and deploy again.",
        )
    declared = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
    return tuple(f"{entry['entrypoint'].rpartition('.')[2]}/{entry['name']}" for entry in declared)


async def _automate(notify_url: str | None) -> dict[str, str]:
    """Create or update each automation by its name; return what was done to each."""
    from prefect import get_client

    done: dict[str, str] = {}
    async with get_client() as client:
        block = await _notification_block(notify_url) if notify_url else None
        for entry in yaml.safe_load(AUTOMATIONS.read_text()):
            notifies = any("notify" in action for action in entry["actions"])
            if notifies and block is None:
                done[entry["name"]] = await _remove(client, entry["name"])
            else:
                done[entry["name"]] = await _upsert(client, await _resolved(client, entry, block))
    return done


async def _resolved(
    client: PrefectClient, entry: dict[str, Any], block: BlockDocument | None
) -> dict[str, Any]:
    """Return an automation with ids in place of the names of deployments and of the notification."""
    actions = []
    for action in entry["actions"]:
        if "deployment" in action:
            deployment = await client.read_deployment_by_name(action["deployment"])
            actions.append(
                {
                    "type": "run-deployment",
                    "deployment_id": str(deployment.id),
                    "parameters": action["parameters"],
                }
            )
        elif "notify" in action and block is not None:
            actions.append(
                {"type": "send-notification", "block_document_id": str(block.id), **action["notify"]}
            )
        else:
            actions.append(action)
    trigger = {"type": "event", "posture": "Reactive", **entry["trigger"]}
    return {**entry, "trigger": trigger, "actions": actions}


async def _upsert(client: PrefectClient, entry: dict[str, Any]) -> str:
    from prefect.events.schemas.automations import AutomationCore

    wanted = AutomationCore.model_validate(entry)
    found = await client.read_automations_by_name(entry["name"])
    if not found:
        await client.create_automation(wanted)
        return "created"
    for spare in found[1:]:
        await client.delete_automation(spare.id)
    standing = AutomationCore.model_validate(found[0].model_dump(include=set(AutomationCore.model_fields)))
    wanted = wanted.model_copy(update={"enabled": standing.enabled})  # what somebody turned off stays off
    if standing == wanted:
        return "unchanged"
    await client.update_automation(found[0].id, wanted)
    return "updated"


async def _remove(client: PrefectClient, name: str) -> str:
    for found in await client.read_automations_by_name(name):
        await client.delete_automation(found.id)
    return "off"


async def _notification_block(url: str) -> BlockDocument:
    """Keep the address that notifications go to as a block: Slack's own for Slack, JSON for any other."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
    from prefect.client.orchestration import get_client

    block: Any
    if url.startswith(SLACK):
        block = SlackWebhook(url=url)
    else:
        content = {"subject": "{{subject}}", "body": "{{body}}"}
        block = CustomWebhookNotificationBlock(name="Understudy", url=url, json_data=content)
    await type(block).register_type_and_schema()
    identity = await block.save(BLOCK, overwrite=True)
    async with get_client() as client:
        return await client.read_block_document(identity)
