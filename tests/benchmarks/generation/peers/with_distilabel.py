"""The workload with distilabel: three text generation steps, each in a process of its own.

Every step asks for a batch at once and three run together, so a batch is a third of what may be asked at
once. The pipeline's cache lies in the folder.
"""

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from workload import DOCUMENT, IDEA, MODEL, SYSTEM, TOKENS, TRAITS, Workload, read_workload, tell

STEPS = 3


def step(name: str, system: str, prompt: str, column: str, work: Workload) -> TextGeneration:
    model = OpenAILLM(
        model=MODEL,
        base_url=work.url,
        api_key="none",
        generation_kwargs={"max_new_tokens": TOKENS},
    )
    return TextGeneration(
        name=name,
        llm=model,
        system_prompt=system,
        template=prompt,
        columns=[column],
        output_mappings={"generation": name, "model_name": f"{name}_model"},
        input_batch_size=max(1, work.concurrency // STEPS),
        add_raw_output=False,
        add_raw_input=False,
    )


def main() -> None:
    work = read_workload()
    with Pipeline(name="bench", cache_dir=work.folder) as pipeline:
        rows = LoadDataFromDicts(
            name="topics",
            data=[{"topic": topic} for topic in work.topics],
            batch_size=work.concurrency,
        )
        ideas = step("idea", SYSTEM, IDEA, "topic", work)
        documents = step("document", SYSTEM, DOCUMENT, "idea", work)
        rows >> ideas >> documents >> step("response", TRAITS, work.response, "document", work)
    made = pipeline.run(use_cache=True)
    tell(sum(bool(row["response"]) for row in made["default"]["train"]))


if __name__ == "__main__":
    main()
