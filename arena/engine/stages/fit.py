"""Training of a purifier on the attacker's own data, once for every release."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from arena.engine.job import Desk, Grants, Job, attacker_world
from arena.engine.stages.base import Costs, Input, Stage
from arena.engine.stages.purify import attack_flops
from arena.plugins.base import Attack
from arena.plugins.spec import PluginSpec


@dataclass(frozen=True, kw_only=True)
class Fit(Stage):
    """What `Attack.fit` writes."""

    kind = "fit"
    seconds_per_sample = 0.1

    attack: PluginSpec
    grants: Grants
    auxiliary: Input | None

    def hand_over(self, job: Job, given: Path) -> None:
        if self.auxiliary is not None:
            self.copy(job, "auxiliary", given, self.grants.granted)

    def run(self, desk: Desk) -> None:
        cast(Attack, self.attack.create()).fit(attacker_world(desk, self.grants), desk.made)

    def collect(self, job: Job, made: Path) -> None:
        shutil.copytree(made, job.folder, dirs_exist_ok=True)

    def global_seed(self) -> int:
        return self.grants.seed or 0

    def flops(self, costs: Costs) -> float:
        return attack_flops(self.attack, self.grants, self.size, costs)
