"""What a defense makes of the clean training samples, within its budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from arena.budget import Budget
from arena.engine.job import Job, defender_world
from arena.engine.stages.base import (
    FORWARD,
    FROZEN,
    PICTURE,
    TEXT,
    TOKENS,
    Artifact,
    Costs,
    Fields,
    Input,
    Stage,
    cost,
    write_samples,
)
from arena.plugins.base import Defense
from arena.plugins.spec import PluginSpec, load_model
from arena.release import build_release

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


@dataclass(frozen=True, kw_only=True)
class Release(Stage):
    """Crafting, rounding to 8 bits, and the budget's check. `budget` is None where the defense changes nothing,
    `surrogates` and `seed` where it reads none."""

    kind = "release"
    seconds_per_sample = 0.1

    defense: PluginSpec
    budget: Budget | None
    surrogates: tuple[PluginSpec, ...] | None
    seed: int | None
    train: Input
    auxiliary: Input | None

    def compute(self, job: Job) -> None:
        defense = cast(Defense, self.defense.create())
        budget = self.budget or Budget(norm="linf", image=0, text=0)
        samples, specs = job.samples("train"), self.surrogates
        models = None if specs is None else partial(_load, specs)
        world = defender_world(job, budget, self.seed, models)
        tokens = None if specs is None else TokenCounter(partial(_load, specs[:1]))
        write_samples(job, build_release(samples, defense.protect(samples, world), budget, tokens))
        job.write("diagnostics.json", {name: float(value) for name, value in world.diagnostics.items()})

    def global_seed(self) -> int:
        return self.seed or 0

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["diagnostics"] = artifact.json("diagnostics.json")
        fields["cost"]["protect"] = cost([artifact])
        fields["lineage"]["release"] = artifact.manifest.digest

    def flops(self, costs: Costs) -> float:
        if not self.surrogates:
            return 0.0
        effort = cast(Defense, costs.plugin(self.defense)).effort(self.size, self.budget or Budget())
        passes = effort.forwards * FORWARD + effort.gradients * (FORWARD + FROZEN)
        tokens = self.size * (passes * TOKENS + effort.texts * FORWARD * TEXT)
        return sum(tokens * costs.parameters(model) for model in self.surrogates)

    def disk(self, costs: Costs) -> float:
        return self.size * PICTURE


def _load(specs: tuple[PluginSpec, ...]) -> tuple[LVLM, ...]:
    return tuple(map(load_model, specs))


class TokenCounter:
    """Tokens of a text under the first surrogate's tokenizer, loaded when the first text is counted."""

    def __init__(self, load: Callable[[], tuple[LVLM, ...]]) -> None:
        self._load = load
        self._tokenizer: Any = None

    def __call__(self, text: str) -> int:
        if self._tokenizer is None:
            self._tokenizer = self._load()[0].tokenizer
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
