"""What a defense makes of the clean training samples, within its budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from arena.budget import Budget, check
from arena.data.sample import digest
from arena.engine.job import Desk, Job, defender_world, write_json
from arena.engine.stages.base import (
    FORWARD,
    FROZEN,
    PICTURE,
    TEXT,
    TOKENS,
    Artifact,
    Asking,
    Costs,
    Fields,
    Input,
    Stage,
    collect_samples,
    cost,
    read_made,
)
from arena.errors import ArenaError
from arena.plugins.base import Defense
from arena.plugins.spec import PluginSpec, load_model
from arena.release import read_drafts, read_questions, round_drafts, write_drafts

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


DRAFTS, DIAGNOSTICS, COUNTS = "drafts", "diagnostics.json", "counts.json"


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

    def run(self, desk: Desk) -> None:
        defense = cast(Defense, self.defense.create())
        samples, specs = desk.samples("train"), self.surrogates
        before = digest(samples)
        world = defender_world(desk, self.bounds, self.seed, None if specs is None else partial(_load, specs))
        drafts = list(round_drafts(samples, defense.protect(samples, world)))
        if digest(samples) != before:
            raise ArenaError("it changed the samples that it was given, in place: return new pictures in drafts")
        write_drafts(drafts, desk.made / DRAFTS)
        desk.write(DIAGNOSTICS, {str(name): float(value) for name, value in world.diagnostics.items()})

    def ask(self, job: Job, made: Path, given: Path) -> Asking | None:
        if not self.surrogates:
            return None
        texts = self._texts(job, made)
        if not texts:
            return None
        write_json(given / "texts.json", texts)
        return Asking(self.surrogates[0])

    def collect(self, job: Job, made: Path) -> None:
        originals = job.samples("train")
        released = read_drafts(made / DRAFTS, originals)
        tokens: Callable[[str], int] | None = None
        if self.surrogates is not None:
            texts = self._texts(job, made)
            counts = read_made(made / COUNTS, "the count of tokens") if texts else []
            if not isinstance(counts, list) or len(counts) != len(texts) or not all(isinstance(n, int) for n in counts):
                raise ArenaError(f"model {self.surrogates[0].id!r} gave no count of tokens for each text")
            known = dict(zip(texts, counts, strict=True))
            tokens = known.__getitem__
        for index, (original, sample) in enumerate(zip(originals, released, strict=True)):
            check(original, sample, self.bounds, tokens, index)
        collect_samples(job, released)
        diagnostics = read_made(made / DIAGNOSTICS, DIAGNOSTICS)
        if not isinstance(diagnostics, dict) or not all(isinstance(v, float) for v in diagnostics.values()):
            raise ArenaError(f"{DIAGNOSTICS} holds other things than numbers")
        job.write(DIAGNOSTICS, diagnostics)

    @property
    def bounds(self) -> Budget:
        """What a release may change."""
        return self.budget or Budget(norm="linf", image=0, text=0)

    def _texts(self, job: Job, made: Path) -> list[str]:
        """Every question before and after, once, if one changed."""
        before = [sample.question for sample in job.samples("train")]
        after = read_questions(made / DRAFTS)
        return list(dict.fromkeys([*before, *after]))

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
