"""The base model's answers before any fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from arena.engine.job import Job
from arena.engine.stages.answering import answer
from arena.engine.stages.base import ANSWER, FORWARD, TOKENS, Artifact, Costs, Fields, Input, Stage
from arena.plugins.spec import PluginSpec, load_model


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Stage):
    """Accuracy of the model as it is."""

    kind = "zero-shot"
    seconds_per_sample = 0.005

    model: PluginSpec
    convention: str
    measures: tuple[str, ...]
    test: Input

    def compute(self, job: Job) -> None:
        answered = answer(load_model(self.model), job.samples("test"), self.convention, self.measures)
        job.write("outcome.json", answered)

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        outcome = artifact.json("outcome.json")
        fields["zero_shot"] = outcome["correct"], outcome.get("metrics")

    def flops(self, costs: Costs) -> float:
        return self.size * FORWARD * (TOKENS + ANSWER) * costs.parameters(self.model)
