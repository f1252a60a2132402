"""What an attack makes of released samples before anything is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from arena.engine.job import Grants, Job, attacker_world
from arena.engine.stages.base import (
    FORWARD,
    FROZEN,
    PICTURE,
    TOKENS,
    Costs,
    Input,
    Stage,
    write_samples,
)
from arena.errors import ArenaError
from arena.plugins.base import Attack
from arena.plugins.spec import PluginSpec


@dataclass(frozen=True, kw_only=True)
class Purify(Stage):
    """One attack of a chain, on the samples that the one before it leaves."""

    kind = "purified"
    seconds_per_sample = 0.003

    attack: PluginSpec
    grants: Grants
    samples: Input
    auxiliary: Input | None
    fitted: Input | None

    def compute(self, job: Job) -> None:
        attack = cast(Attack, self.attack.create())
        samples = list(attack.purify(job.samples("samples"), attacker_world(job, self.grants)))
        if not samples:
            raise ArenaError(f"attack {self.attack.id!r}: it left no sample to train on")
        write_samples(job, samples)

    def global_seed(self) -> int:
        return self.grants.seed or 0

    def flops(self, costs: Costs) -> float:
        return attack_flops(self.attack, self.grants, self.size, costs)

    def disk(self, costs: Costs) -> float:
        return costs.samples(self.name) * PICTURE


def attack_flops(attack: PluginSpec, grants: Grants, samples: int, costs: Costs) -> float:
    """What an attack takes with the model that it was granted; nothing without one."""
    if grants.model is None:
        return 0.0
    effort = cast(Attack, costs.plugin(attack)).effort()
    passes = effort.forwards * FORWARD + effort.gradients * (FORWARD + FROZEN)
    return passes * samples * TOKENS * costs.parameters(grants.model)
