"""What a suite on checkpoints of the hub will take, before anything of it has run: GPU hours and disk by a stated
model.

It is arithmetic, not measurement. A forward pass costs 2 P FLOPs a token at P parameters, a backward pass 4 P where all
weights learn and 2 P where the gradient only passes through (adapters, a projector, pixels, embeddings). A sample has
`TOKENS` tokens, whatever its picture and the model; an answer is `ANSWER` tokens, generated. Hardware does
`UTILISATION` of the dense bf16 peak of one H100. How often a stage runs a sample is the stage's own to say
(`arena.engine.stages`), and the plugins': `Defense.effort`, `Attack.effort`, and of a recipe what it trains, its
epochs and checkpoints. Auxiliary samples that an attack is granted are trained on, unless it is fitted to them.

Disk: a sample is `PICTURE` bytes of PNG; adapters are 32-bit and have `ADAPTER` parameters a rank at 7 billion
parameters, growing with their power of 2/3; a projector is `PROJECTOR` of the parameters, in the model's own type, as
all weights are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from arena.engine.graph import Plan
from arena.engine.stages import Purify, Stage
from arena.engine.stages.base import ANSWER, FORWARD, FROZEN, LEARNING, PICTURE, TEXT, TOKENS
from arena.engine.stages.fine_tune import ADAPTER
from arena.plugins.base import ModelSource, Plugin
from arena.plugins.registry import Registry
from arena.plugins.spec import PluginSpec

PEAK, UTILISATION = 989e12, 0.4
WIDTH = 2
"""Bytes a parameter in a download of the hub."""


def assumptions() -> str:
    """The model in a paragraph, for whoever reads its numbers."""
    return (
        f"Stated, not measured: {FORWARD} FLOPs a parameter and token forwards, {LEARNING} backwards, {FROZEN} where "
        f"weights are frozen; {TOKENS} tokens a sample ({TEXT} of text), {ANSWER} an answer; passes a sample from the "
        f"plugins' settings; {UTILISATION:.0%} of an H100's {PEAK / 1e12:.0f} TFLOP/s. {PICTURE / 1e6:g} MB a picture; "
        f"adapters of {ADAPTER / 1e6:g} million parameters a rank at 7 billion; weights in the type they are loaded in."
    )


@dataclass
class Costs:
    """FLOPs and bytes by kind of stage; `downloads` are the bytes of the base models, once each, `unknown` the ids of
    models whose size nobody said, which count as nothing."""

    flops: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    disk: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    downloads: float = 0
    unknown: tuple[str, ...] = ()

    def gpu_hours(self, kind: str | None = None) -> float:
        """Of one kind of stage, or of all."""
        flops = sum(self.flops.values()) if kind is None else self.flops.get(kind, 0.0)
        return flops / (PEAK * UTILISATION) / 3600


class CostModel:
    """The model of this module, for the stages of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._stages = plan.stages
        self._sizes: dict[str, float | None] = {}
        self._named: dict[str, str] = {}
        self._plugins: dict[int, Plugin] = {}
        self._registry = Registry()

    def costs(self, stages: Iterable[Stage]) -> Costs:
        """What these stages of the plan take together."""
        found = Costs()
        for stage in stages:
            found.flops[stage.kind] += stage.flops(self)
            found.disk[stage.kind] += stage.disk(self)
        found.unknown = tuple(sorted({self._named[w] for w, size in self._sizes.items() if size is None}))
        found.downloads = sum(size or 0.0 for size in self._sizes.values()) * WIDTH
        return found

    def known(self, model: PluginSpec) -> float | None:
        """Parameters of a model, None where nobody counted."""
        weights = str(model.fingerprint)
        if weights not in self._sizes:
            self._sizes[weights] = cast(ModelSource, self.plugin(model)).parameters()
            self._named[weights] = model.id
        return self._sizes[weights]

    def parameters(self, model: PluginSpec) -> float:
        """Parameters of a model, 0 where nobody counted."""
        return self.known(model) or 0.0

    def plugin(self, spec: PluginSpec) -> Plugin:
        """The plugin of a spec of the plan, made once."""
        if id(spec) not in self._plugins:
            self._plugins[id(spec)] = self._registry.create(spec.kind, spec.id, {**spec.config, **spec.runtime})
        return self._plugins[id(spec)]

    def samples(self, stage: str) -> int:
        """How many samples the stage of that name leaves."""
        found = self._stages[stage]
        if not isinstance(found, Purify):
            return found.size
        added = 0 if found.fitted is not None else found.grants.granted or 0
        return self.samples(found.samples.stage) + added
