"""What a defense makes of the clean training samples, within its budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from arena.budget import Budget, check
from arena.data import shelf
from arena.data.pictures.encoding import Encoding
from arena.data.sample import Sample, digest
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
from arena.errors import ArenaError, Refused
from arena.plugins.base import Defense
from arena.plugins.spec import PluginSpec, load_model
from arena.release import read_drafts, read_questions, round_drafts, write_drafts
from arena.text import shortened

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


DRAFTS, DIAGNOSTICS, COUNTS, REFUSED = "drafts", "diagnostics.json", "counts.json", "refused.json"


@dataclass(frozen=True, kw_only=True)
class Release(Stage):
    """Crafting, rounding to 8 bits, and the budget's check. `budget` is None where the defense changes nothing,
    `surrogates` and `seed` where it reads none; with an `encoding` that is lossy surrogates see pictures through it."""

    kind = "release"
    seconds_per_sample = 0.1

    defense: PluginSpec
    budget: Budget | None
    surrogates: tuple[PluginSpec, ...] | None
    seed: int | None
    train: Input
    auxiliary: Input | None
    encoding: Encoding | None = None

    def run(self, desk: Desk) -> None:
        shelf.limit(shelf.SMALL)  # a defense needs the memory that it has for itself
        defense = cast(Defense, self.defense.create())
        samples = desk.samples("train")
        before = digest(samples)
        surrogates = None if self.surrogates is None else partial(self._load, samples, desk)
        world = defender_world(desk, self.bounds, self.seed, surrogates)
        drafts = round_drafts(samples, defense.protect(samples, world))
        write_drafts(drafts, desk.made / DRAFTS)
        if digest(samples) != before:
            raise ArenaError("it changed the samples that it was given, in place: return new pictures in drafts")
        desk.write(DIAGNOSTICS, {str(name): float(value) for name, value in world.diagnostics.items()})

    def _load(self, samples: Sequence[Sample], desk: Desk) -> tuple[LVLM, ...]:
        """The surrogates, after a look at what of the samples they cannot take: before anything is crafted."""
        from arena.lvlm.base import LVLM
        from arena.lvlm.published import seeing_published

        models = _load(self.surrogates or ())
        refused: dict[int, ArenaError] = {}
        for lvlm in models:
            if isinstance(lvlm, LVLM):
                refused |= refused_by(lvlm, [(s.image.height, s.image.width) for s in samples])
        if refused:
            desk.write(REFUSED, {i: _reason_and_remedy(error) for i, error in refused.items()})
            first = min(refused)
            more = f"; and {len(refused) - 1} samples more" if len(refused) > 1 else ""
            raise ArenaError(f"sample {samples[first].id!r}: {refused[first]}{more}")
        return tuple(seeing_published(lvlm, self.encoding) if self.encoding else lvlm for lvlm in models)

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
        tokens = None
        if self.surrogates:
            tokens = read_counts(made, self._texts(job, made), self.surrogates[0].id)
        for index, (original, sample) in enumerate(zip(originals, released, strict=True)):
            check(original, sample, self.bounds, tokens, index)
        collect_samples(job, released)
        job.write(DIAGNOSTICS, read_diagnostics(made))

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


def read_counts(made: Path, texts: Sequence[str], model: str) -> Callable[[str], int]:
    """How many tokens a text has, as a model's process wrote it for each of some. Raises `ArenaError`."""
    counts = read_made(made / COUNTS, "the count of tokens")
    if not isinstance(counts, list) or len(counts) != len(texts) or not all(isinstance(n, int) for n in counts):
        raise ArenaError(f"model {model!r} gave no count of tokens for each text")
    return dict(zip(texts, counts, strict=True)).__getitem__


def read_diagnostics(made: Path) -> dict[str, float]:
    """The numbers about the crafting that a defense left. Raises `ArenaError`."""
    found = read_made(made / DIAGNOSTICS, DIAGNOSTICS)
    if not isinstance(found, dict) or not all(isinstance(value, float) for value in found.values()):
        raise ArenaError(f"{DIAGNOSTICS} holds other things than numbers")
    return {shortened(name, 100): value for name, value in found.items()}


def _load(specs: tuple[PluginSpec, ...]) -> tuple[LVLM, ...]:
    """The surrogates. Raises `ArenaError` for one whose weights are no numbers: its gradients would be none either,
    which changes nothing and says nothing."""
    models = []
    for spec in specs:
        lvlm = load_model(spec)
        if bad := _not_numbers(lvlm):
            raise ArenaError(
                f"surrogate {spec.id!r}: NaN or infinite weights in {len(bad)} of its parameters, the first is "
                f"{bad[0]}: nothing can be crafted against it; restore its checkpoint, or name another"
            )
        models.append(lvlm)
    return tuple(models)


def refused_by(lvlm: LVLM, sizes: Sequence[tuple[int, int]]) -> dict[int, ArenaError]:
    """The pictures, of these heights and widths, that a model cannot take, by their numbers, with why."""
    found: dict[int, ArenaError] = {}
    said: dict[tuple[int, int], ArenaError | None] = {}
    for index, size in enumerate(sizes):
        if size not in said:
            try:
                lvlm.image_text(*size)
                said[size] = None
            except ArenaError as error:
                said[size] = error
        if (problem := said[size]) is not None:
            found[index] = problem
    return found


def _reason_and_remedy(error: ArenaError) -> tuple[str, str]:
    """What is said of a picture that a model cannot take."""
    if isinstance(error, Refused):
        return f"cannot be crafted on: {error.where} {error.reason}", error.remedy
    return f"cannot be crafted on: {error}", "crop or scale it, or leave it out"


def read_refused(made: Path, samples: int) -> dict[int, tuple[str, str]]:
    """The samples, of so many, that a release's process said its surrogates cannot take, each with a reason and a
    remedy; none where it said nothing of the kind."""
    path = made / REFUSED
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 2**24:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = {str(i) for i in range(samples)}
    return {
        int(number): (shortened(said[0], 400), shortened(said[1], 400))
        for number, said in found.items()
        if number in numbers and isinstance(said, list) and len(said) == 2 and all(isinstance(x, str) for x in said)
    }


def _not_numbers(lvlm: LVLM) -> list[str]:
    """Names of the parameters of a model that have NaN or infinite values."""
    import torch

    module = getattr(lvlm, "model", None)
    if not isinstance(module, torch.nn.Module):
        return []
    weights = ((name, weight) for name, weight in module.named_parameters() if weight.is_floating_point())
    return [name for name, weight in weights if not torch.isfinite(weight).all()]
