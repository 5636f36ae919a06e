"""The workload with Data Designer: a seed column and three text columns, each of which names the one before.

Row groups of 25 are its checkpoints; the same folder and configuration go on where they stopped.
"""

from data_designer.config.column_configs import LLMTextColumnConfig
from data_designer.config.config_builder import DataDesignerConfigBuilder
from data_designer.config.models import ChatCompletionInferenceParams, ModelConfig, ModelProvider
from data_designer.config.run_config import ResumeMode, RunConfig
from data_designer.config.seed_source import LocalFileSeedSource
from data_designer.interface.data_designer import DataDesigner
from workload import DOCUMENT, IDEA, MODEL, SYSTEM, TOKENS, TRAITS, read_workload, tell

GROUP = 25


def main() -> None:
    work = read_workload()
    provider = ModelProvider(name="here", endpoint=work.url, api_key="none")
    parameters = ChatCompletionInferenceParams(max_parallel_requests=work.concurrency, max_tokens=TOKENS)
    model = ModelConfig(
        alias="writer",
        model=MODEL,
        provider="here",
        inference_parameters=parameters,
        skip_health_check=True,
    )
    seeds = work.folder / "topics.csv"
    seeds.write_text("\n".join(["topic", *work.topics]) + "\n")
    builder = DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(LocalFileSeedSource(path=str(seeds)))
    columns = {"idea": (SYSTEM, IDEA), "document": (SYSTEM, DOCUMENT), "response": (TRAITS, work.response)}
    for name, (system, prompt) in columns.items():
        builder.add_column(
            LLMTextColumnConfig(name=name, system_prompt=system, prompt=prompt, model_alias="writer")
        )
    designer = DataDesigner(artifact_path=work.folder / "artifacts", model_providers=[provider])
    designer.set_run_config(RunConfig(disable_early_shutdown=True, buffer_size=GROUP, otel_metrics_port=None))
    made = designer.create(
        builder, num_records=work.rows, dataset_name="bench", resume=ResumeMode.IF_POSSIBLE
    )
    tell(int(made.load_dataset()["response"].astype(bool).sum()))


if __name__ == "__main__":
    main()
