"""The workload that every peer is given: rows of idea → document → response, and how a peer tells its end.

Does not know any peer; it is run with each peer's own Python, so it uses the standard library alone. The
prompts are about as long as Understudy's. `distinct` makes rows share their first prompt on purpose, `note`
changes the prompt of the last stage only.
"""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

MODEL = "mock"
SYSTEM = "You write short, concrete texts from working life."
TRAITS = (
    "You are open, fair and clear; you name what is known, what is not, and what should happen next. " * 3
)
IDEA = (
    "Write one workplace situation, number {{ topic }}. Give the person a name and a job, say what went "
    "wrong or what must be decided, who disagrees, and what makes it hard. It should call for an answer "
    "that is open, fair and clear. Two or three sentences. No title and no list."
)
DOCUMENT = (
    "{{ idea }}\n\nWrite the full text of your memo to the whole team about this, about 120 words, with the "
    "header lines that a memo has. Explain what happened, with facts and figures, what each person involved "
    "wants, what presses and by when it must be decided. End with a direct question to the reader."
)
RESPONSE = "{{ document }}\n\n---\nAnswer this memo in about 120 words, in your own voice. NOTE"
TOKENS = 240


@dataclass(frozen=True)
class Workload:
    """What to write: so many rows, so many calls at once, with everything kept in the folder."""

    rows: int
    concurrency: int
    folder: Path
    url: str
    topics: tuple[str, ...]
    response: str


def read_workload() -> Workload:
    """Return the workload of the command line, with the server of OPENAI_BASE_URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--distinct", type=int, default=0)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    return Workload(
        rows=given.rows,
        concurrency=given.concurrency,
        folder=given.folder,
        url=os.environ["OPENAI_BASE_URL"],
        topics=tuple(str(row % (given.distinct or given.rows)) for row in range(given.rows)),
        response=RESPONSE.replace("NOTE", given.note).strip(),
    )


def fill(template: str, **values: str) -> str:
    """Return the template with its `{{ name }}` replaced, for peers without templates of their own."""
    for name, value in values.items():
        template = template.replace("{{ " + name + " }}", value)
    return template


def tell(rows: int) -> None:
    """Say how many whole rows there are."""
    print(json.dumps({"rows": rows}), flush=True)
