"""How much a release shows, measured on its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena.engine.job import Job
from arena.engine.stages.base import FORWARD, TEXT, Artifact, Costs, Fields, Input, Stage
from arena.plugins.spec import PluginSpec, load_model

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


@dataclass(frozen=True, kw_only=True)
class Stealth(Stage):
    """Distances between originals and release; perplexity is that of `reader`, which is loaded where a text changed."""

    kind = "stealth"
    seconds_per_sample = 0.02

    reader: PluginSpec
    originals: Input
    release: Input

    def compute(self, job: Job) -> None:
        from arena.score.stealth import stealth

        originals, released = job.samples("originals"), job.samples("release")
        lvlm: list[LVLM] = []

        def perplexity(texts: list[str]) -> list[float]:
            if not lvlm:
                lvlm.append(load_model(self.reader))
            return lvlm[0].perplexities(texts)

        changed = any(a.question != b.question for a, b in zip(originals, released, strict=True))
        job.write("stealth.json", stealth(originals, released, perplexity if changed else None))

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["stealth"] = artifact.json("stealth.json")

    def flops(self, costs: Costs) -> float:
        return 2 * self.size * FORWARD * TEXT * costs.parameters(self.reader)
