"""What an attack makes of released samples before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from arena.budget import mode_problem
from arena.data.metadata import FIELDS
from arena.data.sample import Sample
from arena.engine.job import NOTES, NOTES_FILE, Desk, Grants, Job, attacker_world, write_json
from arena.engine.stages.base import (
    FORWARD,
    FROZEN,
    PICTURE,
    SAMPLES,
    TOKENS,
    Costs,
    Input,
    Stage,
    collect_samples,
    read_made,
)
from arena.errors import ArenaError
from arena.plugins.base import Attack
from arena.plugins.spec import PluginSpec
from arena.release import read_release

MOST_NOTED = 2**16
"""Bytes of notes that an attack may leave for its training."""


@dataclass(frozen=True, kw_only=True)
class Purify(Stage):
    """One attack of a chain, on the samples that the one before it leaves; with `notes` it enters training later, and
    finds there what it noted here."""

    kind = "purified"
    seconds_per_sample = 0.003
    judged_by = ("arena.release",)  # its pictures may be of any size

    attack: PluginSpec
    grants: Grants
    samples: Input
    auxiliary: Input | None
    fitted: Input | None
    originals: Input | None = None
    notes: bool = False

    def hand_over(self, job: Job, given: Path) -> None:
        for role in self.inputs:
            self.copy(job, role, given, self.grants.granted if role in ("auxiliary", "originals") else None)

    def run(self, desk: Desk) -> None:
        attack = cast(Attack, self.attack.create())
        world = attacker_world(desk, self.grants)
        samples = list(attack.purify(desk.samples("samples"), world))
        check_purified(samples)
        desk.put(samples)
        if self.notes:
            try:
                desk.write(NOTES_FILE, world.notes)
            except (TypeError, ValueError) as error:
                raise ArenaError(
                    f"world.notes holds what JSON cannot ({error}): note text, numbers, lists, dicts"
                ) from None

    def collect(self, job: Job, made: Path) -> None:
        samples = read_release(made / SAMPLES)
        check_purified(samples)
        collect_samples(job, samples)
        if self.notes:
            (job.folder / NOTES).mkdir()
            write_json(job.folder / NOTES / NOTES_FILE, noted(made / NOTES_FILE))

    def global_seed(self) -> int:
        return self.grants.seed or 0

    def flops(self, costs: Costs) -> float:
        return attack_flops(self.attack, self.grants, self.size, costs)

    def disk(self, costs: Costs) -> float:
        return costs.samples(self.name) * PICTURE


def noted(path: Path) -> dict[str, Any]:
    """The notes of an attack. Raises `ArenaError` where they are too long or no JSON object."""
    if path.exists() and path.stat().st_size > MOST_NOTED:
        raise ArenaError(f"world.notes takes {path.stat().st_size:,} bytes, at most {MOST_NOTED:,}: note less")
    notes = read_made(path, "world.notes")
    if not isinstance(notes, dict):
        raise ArenaError(f"world.notes is a {type(notes).__name__}: leave it a dict")
    return notes


def attack_flops(attack: PluginSpec, grants: Grants, samples: int, costs: Costs) -> float:
    """What an attack takes with the model that it was granted; nothing without one."""
    if grants.model is None:
        return 0.0
    effort = cast(Attack, costs.plugin(attack)).effort()
    passes = effort.forwards * FORWARD + effort.gradients * (FORWARD + FROZEN)
    return passes * samples * TOKENS * costs.parameters(grants.model)


def _no_text(sample: Sample) -> str | None:
    """The field of a sample that is no text, or none that can be written."""
    for field in FIELDS:
        value = getattr(sample, field)
        for text in value if isinstance(value, tuple | list) else (value,):
            if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
                return field
    return None


def check_purified(samples: Sequence[Any]) -> None:
    """Refuse what nothing can be trained on. Raises `ArenaError` naming the sample."""
    if not samples:
        raise ArenaError("it left no sample to train on")
    for index, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            raise ArenaError(
                f"it returned a {type(sample).__name__} as sample {index}: return arena.data.sample.Sample"
            )
        where = f"sample {index} ({sample.id!r})"
        if not hasattr(sample.image, "mode"):
            raise ArenaError(
                f"{where}: its picture is a {type(sample.image).__name__}: return a PIL image of 8 bits a channel"
            )
        if problem := mode_problem(sample.image):
            raise ArenaError(f"{where}: {problem}")
        if not (isinstance(sample.question, str) and sample.question.strip()):
            raise ArenaError(f"{where}: its question is empty or no text")
        if field := _no_text(sample):
            raise ArenaError(f"{where}: its {field} is no text that UTF-8 can hold: change only picture and question")
    if twice := [id for id, count in Counter(sample.id for sample in samples).items() if count > 1]:
        raise ArenaError(
            f"{len(twice)} ids stand more than once in what it returned, such as {twice[0]!r}: give each sample one"
        )
