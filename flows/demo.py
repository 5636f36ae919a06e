"""The demo: a small synthetic run beside the whole loop for one persona.

Does not know anything that the other flows do not.
"""

from __future__ import annotations

from prefect import flow

from agents.schemas import Frozen
from flows.generate import generate
from flows.pipeline import PipelineReport, pipeline
from tasks.export import GenerateReport
from tasks.specs import GenerateSpec, PipelineSpec


class DemoReport(Frozen):
    """What the two halves of the demo came to."""

    generated: GenerateReport
    pipeline: PipelineReport


@flow(name="demo", flow_run_name="demo-{pipeline_spec.persona}")
async def demo(generate_spec: GenerateSpec, pipeline_spec: PipelineSpec) -> DemoReport:
    """Write synthetic examples for one persona, then run the loop for another."""
    return DemoReport(generated=await generate(generate_spec), pipeline=await pipeline(pipeline_spec))
