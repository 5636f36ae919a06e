"""The workload with SDG Hub: a flow of prompt, chat and extraction blocks, three times over.

Its checkpoints lie in the folder, saved after every 50 rows.
"""

import pandas
from sdg_hub import Flow, FlowMetadata
from sdg_hub.core.blocks import LLMChatBlock, LLMResponseExtractorBlock, PromptBuilderBlock
from workload import DOCUMENT, IDEA, MODEL, SYSTEM, TOKENS, TRAITS, Workload, fill, read_workload, tell

SAVE_EVERY = 50


def stage(name: str, system: str, prompt: str, source: str, work: Workload) -> list[object]:
    template = work.folder / f"{name}.yaml"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    template.write_text(pandas.Series(messages).to_json(orient="values"))
    asked, answered = f"{name}_messages", f"{name}_raw"
    return [
        PromptBuilderBlock(
            block_name=f"{name}_prompt",
            input_cols=[source],
            output_cols=asked,
            prompt_config_path=str(template),
        ),
        LLMChatBlock(
            block_name=f"{name}_chat",
            input_cols=asked,
            output_cols=answered,
            async_mode=True,
            max_tokens=TOKENS,
        ),
        LLMResponseExtractorBlock(
            block_name=f"{name}_text", input_cols=answered, extract_content=True, field_prefix=f"{name}_"
        ),
    ]


def main() -> None:
    work = read_workload()
    blocks = stage("idea", SYSTEM, IDEA, "topic", work)
    document = fill(DOCUMENT, idea="{{ idea_content }}")
    blocks += stage("document", SYSTEM, document, "idea_content", work)
    response = fill(work.response, document="{{ document_content }}")
    blocks += stage("response", TRAITS, response, "document_content", work)
    flow = Flow(blocks=blocks, metadata=FlowMetadata(name="bench"))
    flow.set_model_config(model=f"openai/{MODEL}", api_base=work.url, api_key="none")
    made = flow.generate(
        pandas.DataFrame({"topic": work.topics}),
        checkpoint_dir=str(work.folder / "checkpoints"),
        save_freq=SAVE_EVERY,
        max_concurrency=work.concurrency,
    )
    tell(int(made["response_content"].astype(bool).sum()))


if __name__ == "__main__":
    main()
