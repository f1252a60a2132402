"""One split of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from arena.engine.job import Job
from arena.engine.stages.base import PICTURE, Artifact, Costs, Fields, Stage, write_samples
from arena.errors import ArenaError
from arena.plugins.base import Dataset
from arena.plugins.spec import PluginSpec


@dataclass(frozen=True, kw_only=True)
class Data(Stage):
    """Draws the splits and keeps one."""

    kind = "data"
    seconds_per_sample = 0.002

    dataset: PluginSpec
    train: int
    auxiliary: int
    test: int
    seed: int
    split: Literal["train", "auxiliary", "test"]

    def compute(self, job: Job) -> None:
        splits = cast(Dataset, self.dataset.create()).load(self.train, self.auxiliary, self.test, self.seed)
        samples = {"train": splits.train, "auxiliary": splits.auxiliary, "test": splits.test}[self.split]
        if len(samples) != self.size:
            raise ArenaError(
                f"dataset {self.dataset.id!r}: it gave {len(samples)} {self.split} samples instead of {self.size}"
            )
        write_samples(job, samples)

    def global_seed(self) -> None:
        return None

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields.setdefault("drawn", {})[self.split] = artifact.json("samples.json")["digest"]
        if role == "train":
            fields["lineage"]["clean"] = artifact.manifest.digest

    def disk(self, costs: Costs) -> float:
        return self.size * PICTURE
