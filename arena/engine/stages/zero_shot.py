"""The base model's answers before any fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arena.engine.job import Desk, Job
from arena.engine.stages.answering import ANSWERS, hand_over_test, judge, limit, read_answers, with_ids
from arena.engine.stages.base import ANSWER, FORWARD, SAMPLES, TOKENS, Artifact, Costs, Fields, Input, Stage
from arena.plugins.spec import PluginSpec, load_model


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Stage):
    """Accuracy of the model as it is."""

    kind = "zero-shot"
    revision = 2
    seconds_per_sample = 0.005

    model: PluginSpec
    convention: str
    measures: tuple[str, ...]
    test: Input

    def hand_over(self, job: Job, given: Path) -> None:
        hand_over_test(self, job, given)

    def named(self, message: str, job: Job) -> str:
        return with_ids(message, job.path("test") / SAMPLES)

    def run(self, desk: Desk) -> None:
        desk.write(ANSWERS, {"0": load_model(self.model).answers(desk.samples("test"), limit(desk))})

    def collect(self, job: Job, made: Path) -> None:
        test = job.samples("test")
        (said,) = read_answers(made, len(test)).values()
        job.write("outcome.json", judge(said, test, self.convention, self.measures))

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        outcome = artifact.json("outcome.json")
        fields["zero_shot"] = outcome["correct"], outcome.get("metrics"), outcome["cut"]

    def flops(self, costs: Costs) -> float:
        return self.size * FORWARD * (TOKENS + ANSWER) * costs.parameters(self.model)
