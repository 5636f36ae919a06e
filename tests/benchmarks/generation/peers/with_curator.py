"""The workload with Curator: three LLM blocks, one after the other, each over the dataset of the one before.

Its cache lies in the folder, a file per block; a killed block goes on where its file stops. It counts tokens
with an encoding that is downloaded at first use, or read from where litellm, which it brings, has a copy.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from bespokelabs import curator
from workload import DOCUMENT, IDEA, MODEL, SYSTEM, TOKENS, TRAITS, Workload, fill, read_workload, tell


class Ideas(curator.LLM):
    def prompt(self, row):
        return fill(IDEA, topic=row["topic"])

    def parse(self, row, answer):
        return {**row, "idea": answer}


class Documents(curator.LLM):
    def prompt(self, row):
        return fill(DOCUMENT, idea=row["idea"])

    def parse(self, row, answer):
        return {**row, "document": answer}


class Responses(curator.LLM):
    def prompt(self, row):
        return fill(row["ask"], document=row["document"])

    def parse(self, row, answer):
        return {**row, "response": answer}


def block(kind: type[curator.LLM], system: str, work: Workload) -> curator.LLM:
    return kind(
        model_name=MODEL,
        backend="openai",
        system_prompt=system,
        generation_params={"max_tokens": TOKENS},
        backend_params={
            "base_url": work.url,
            "api_key": "none",
            "max_concurrent_requests": work.concurrency,
            "max_requests_per_minute": 100_000,
            "max_tokens_per_minute": 100_000_000,
            "require_all_responses": False,
        },
    )


def main() -> None:
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    tokenizers = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(tokenizers))
    work = read_workload()
    cache = str(work.folder)
    rows = [{"topic": topic} for topic in work.topics]
    ideas = block(Ideas, SYSTEM, work)(rows, working_dir=cache).dataset
    documents = block(Documents, SYSTEM, work)(ideas, working_dir=cache).dataset
    asked = documents.map(lambda row: {**row, "ask": work.response})
    responses = block(Responses, TRAITS, work)(asked, working_dir=cache).dataset
    tell(sum(bool(text) for text in responses["response"]))


if __name__ == "__main__":
    main()
