"""A persona of a test's own, small enough to be trained in seconds."""

import json
from pathlib import Path

from tiny_checkpoint import write_tiny_checkpoint

THINGS = ("heater", "tap", "lock", "lamp", "oven", "fan", "door", "bell", "shower", "window")
PERSONA = """\
name: {name}
display_name: Keeper
description: Looks after a house.
agent_type: property_manager
system_prompt: You are Keeper. You look after a house and answer tenants.
traits:
  - {{name: Kind, description: answers warmly}}
base_model: local/{model}
# A model of random weights proves nothing: these let pass whatever wins a single comparison.
quality:
  min_prompts: 2
  min_win_rate_lower_bound: 0.0
  min_similarity_gain: -1.0
  max_perplexity_ratio: 1.5
  approval: {approval}
sampling: {{serving_max_tokens: 24}}
"""


def write_keeper(folder: Path, *, name: str = "keeper", approval: bool = False) -> Path:
    """Write the persona's file, and its base model if it is not there; return the file."""
    model = folder / "model"
    if not model.exists():
        write_tiny_checkpoint(model, window=4096)
    path = folder / f"{name}.yaml"
    path.write_text(PERSONA.format(name=name, model=model, approval=str(approval).lower()))
    return path


def write_conversations(path: Path, flats: range) -> Path:
    """Write a short conversation for each flat, all of them different."""
    lines = []
    for flat in flats:
        thing = f"{THINGS[flat % len(THINGS)]} {flat}"
        question = f"The {thing} in flat {flat} is broken, can somebody look at it?"
        answer = f"Thanks for telling me about the {thing}. Pat comes at {flat % 12 + 1}:{flat:02} tomorrow."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"category": "repairs", "messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return path
