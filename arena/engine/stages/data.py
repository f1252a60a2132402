"""One split of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from arena.data.sample import Sample, Splits, digest
from arena.engine.job import Desk, Job
from arena.engine.stages.base import PICTURE, SAMPLES, Artifact, Costs, Fields, Stage, collect_samples
from arena.errors import ArenaError
from arena.plugins.base import Dataset
from arena.plugins.spec import PluginSpec
from arena.release import read_release


@dataclass(frozen=True, kw_only=True)
class Data(Stage):
    """Draws the splits and keeps one."""

    kind = "data"
    seconds_per_sample = 0.002
    preload = ()
    network = True

    dataset: PluginSpec
    train: int
    auxiliary: int
    test: int
    seed: int
    split: Literal["train", "auxiliary", "test"]

    def run(self, desk: Desk) -> None:
        dataset = cast(Dataset, self.dataset.create())
        parts = split_parts(dataset.load(self.train, self.auxiliary, self.test, self.seed))
        samples = parts[self.split]
        if len(samples) != self.size:
            raise ArenaError(f"it gave {len(samples)} {self.split} samples instead of {self.size}")
        check_splits(parts)
        desk.put(samples)

    def collect(self, job: Job, made: Path) -> None:
        samples = read_release(made / SAMPLES)
        if len(samples) != self.size:
            raise ArenaError(f"it gave {len(samples)} {self.split} samples instead of {self.size}")
        collect_samples(job, samples)

    def global_seed(self) -> None:
        return None

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields.setdefault("drawn", {})[self.split] = artifact.json("samples.json")["digest"]
        if role == "train":
            fields["lineage"]["clean"] = artifact.manifest.digest

    def disk(self, costs: Costs) -> float:
        return self.size * PICTURE


def split_parts(splits: Any) -> dict[str, Sequence[Sample]]:
    """The parts of what a dataset returned, by name. Raises `ArenaError` where that is no `Splits` of samples."""
    if not isinstance(splits, Splits):
        raise ArenaError(f"load returned a {type(splits).__name__}: return arena.data.sample.Splits")
    parts: dict[str, Sequence[Sample]] = {
        "train": splits.train,
        "auxiliary": splits.auxiliary,
        "test": splits.test,
    }
    for name, samples in parts.items():
        wrong = next((s for s in samples if not isinstance(s, Sample)), None)
        if wrong is not None:
            raise ArenaError(f"its {name} samples hold a {type(wrong).__name__}: give arena.data.sample.Sample")
    return parts


def check_splits(parts: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse ids that stand twice, and a sample that is in two parts under whatever id. Raises `ArenaError`."""
    counts = Counter(sample.id for samples in parts.values() for sample in samples)
    if twice := [id for id, count in counts.items() if count > 1]:
        raise ArenaError(
            f"{len(twice)} ids stand more than once in its splits, such as {twice[0]!r}: give each its own"
        )
    seen: dict[str, str] = {}
    for name, samples in parts.items():
        contents = {digest([replace(sample, id="")]): sample.id for sample in samples}
        for content in contents.keys() & seen.keys():
            raise ArenaError(
                f"its {seen[content]} and {name} samples share one, {contents[content]!r} of {name}: they must be "
                "disjoint"
            )
        seen |= dict.fromkeys(contents, name)
