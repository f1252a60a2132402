"""How much a release shows, measured on its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arena.engine.job import Desk, Job, write_json
from arena.engine.stages.base import FORWARD, TEXT, Artifact, Costs, Fields, Input, Stage, read_made
from arena.errors import ArenaError
from arena.plugins.spec import PluginSpec, load_model

READ = "perplexities.json"


@dataclass(frozen=True, kw_only=True)
class Stealth(Stage):
    """Distances between originals and release; perplexity is that of `reader`, which is loaded where a text changed."""

    kind = "stealth"
    seconds_per_sample = 0.02
    judged_by = ("arena.score.stealth",)

    reader: PluginSpec
    originals: Input
    release: Input

    def hand_over(self, job: Job, given: Path) -> None:
        texts = [[s.question for s in job.samples(role)] for role in ("originals", "release")]
        changed = texts[0] != texts[1]
        write_json(given / "texts.json", texts if changed else [[], []])

    def run(self, desk: Desk) -> None:
        before, after = json.loads(desk.path("texts.json").read_text(encoding="utf-8"))
        read: list[float] = []
        if before:
            from arena.score.stealth import chunks  # seconds to import, which most releases need not take

            lvlm = load_model(self.reader)
            for texts in chunks(before, after):
                read += lvlm.perplexities(texts)
        desk.write(READ, read)

    def collect(self, job: Job, made: Path) -> None:
        from arena.score.stealth import stealth

        originals, released = job.samples("originals"), job.samples("release")
        changed = any(a.question != b.question for a, b in zip(originals, released, strict=True))
        perplexity = read_perplexities(made, len(originals)) if changed else None
        job.write("stealth.json", stealth(originals, released, perplexity))

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["stealth"] = artifact.json("stealth.json")

    def flops(self, costs: Costs) -> float:
        return 2 * self.size * FORWARD * TEXT * costs.parameters(self.reader)


def read_perplexities(made: Path, count: int) -> Callable[[list[str]], list[float]]:
    """The perplexities that a model's process wrote, of `count` texts before and after, for who asks for them in the
    order of `arena.score.stealth.chunks`. Raises `ArenaError`."""
    read = read_made(made / READ, READ)
    if not isinstance(read, list) or not all(isinstance(value, int | float) for value in read):
        raise ArenaError(f"{READ} holds other things than numbers")
    if len(read) != 2 * count:
        raise ArenaError(f"the model gave {len(read)} perplexities of {2 * count} texts")
    numbers = iter(read)

    def perplexity(texts: list[str]) -> list[float]:
        return [float(next(numbers)) for _ in texts]

    return perplexity
