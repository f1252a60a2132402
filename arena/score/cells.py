"""The cells of one contest (one dataset and model), resampled once and looked up by many scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from arena.controls import ALONE
from arena.score.statistics import NO_SEEDS, NO_ZERO_SHOT, Bits, Bootstrap, Draws, Estimate, Floats

CLEAN = "none"
"""The defense that changes nothing and, as an attack label, no attack."""

_BATCH_ROWS = 256

Seeds = tuple[int, ...]


class Place(NamedTuple):
    """Where a cell stands in its contest; `auxiliary` is the attacker's clean share."""

    defense: Hashable
    attack: str
    recipe: str
    auxiliary: float


ZERO_SHOT = Place(None, "", "", 0.0)
"""Stands for the model before fine-tuning, which is the same for every seed."""


class Cells:
    """Resampled accuracies by place and seeds.

    `bits` holds per place and seed the correctness of every test item, shape ``(items,)``. Resamples are in memory for
    the controls (defense `CLEAN`, and the others named in `controls`) and for the defenses that are loaded.
    """

    def __init__(
        self,
        bits: Mapping[Place, Mapping[int, Bits]],
        zero_shot: Bits | None,
        bootstrap: Bootstrap | None,
        controls: Iterable[Hashable] = (),
    ) -> None:
        self.bits = bits
        self._controls = {CLEAN, *controls}
        self.places: dict[Hashable, list[Place]] = {}
        self._seeds = {place: tuple(sorted(seeds)) for place, seeds in bits.items()}
        for place in bits:
            self.places.setdefault(place.defense, []).append(place)
        self._bootstrap = bootstrap or Bootstrap(next((len(b) for seeds in bits.values() for b in seeds.values()), 1))
        self._answers: dict[tuple[Place, int], Floats] = {}
        self._means: dict[tuple[Place, Seeds], Draws] = {}
        self._accuracies: dict[Place, Estimate] = {}
        self._estimates: dict[tuple[Place, Place, Seeds], Estimate] = {}
        self._zero: tuple[int, Floats] | None = None
        self.zero_shot = Estimate(undefined=NO_ZERO_SHOT)
        if zero_shot is not None:
            self._zero = int(zero_shot.sum()), self._bootstrap.right_answers(zero_shot[None])[0]
            self.zero_shot = replace(self._bootstrap.constant(*self._zero, 2).estimate(), seeds=0)
        self.load(list(self._controls))

    @property
    def has_zero_shot(self) -> bool:
        """Whether the model was scored before fine-tuning."""
        return self._zero is not None

    def batches(self) -> Iterator[list[Hashable]]:
        """Defenses in batches large enough for one matrix product."""
        batch: list[Hashable] = []
        rows = 0
        for defense, places in self.places.items():
            batch.append(defense)
            rows += sum(len(self.bits[place]) for place in places)
            if rows >= _BATCH_ROWS:
                yield batch
                batch, rows = [], 0
        if batch:
            yield batch

    def load(self, defenses: Sequence[Hashable]) -> None:
        """Resample the cells of these defenses."""
        places = [place for defense in defenses for place in self.places.get(defense, ())]
        keys = [(place, seed) for place in places for seed in self.bits[place] if (place, seed) not in self._answers]
        if keys:
            answers = self._bootstrap.right_answers(np.stack([self.bits[place][seed] for place, seed in keys]))
            self._answers.update(zip(keys, answers, strict=True))

    def unload(self, defenses: Sequence[Hashable]) -> None:
        """Forget the resamples of these defenses; the controls stay."""
        gone = set(defenses) - self._controls
        self._answers = {key: kept for key, kept in self._answers.items() if key[0].defense not in gone}
        self._means = {key: kept for key, kept in self._means.items() if key[0].defense not in gone}
        self._accuracies = {place: kept for place, kept in self._accuracies.items() if place.defense not in gone}
        self._estimates = {
            key: kept for key, kept in self._estimates.items() if not gone & {key[0].defense, key[1].defense}
        }

    def common(self, *places: Place) -> Seeds:
        """The seeds that all places have, rising."""
        seeds = {self._seeds[place] for place in places}
        return seeds.pop() if len(seeds) == 1 else tuple(sorted(set.intersection(*map(set, seeds))))

    def find(self, defense: Hashable, attack: str, recipe: str, auxiliary: float) -> Place | None:
        """The cell, if a seed of it is there; without attack, which uses none of the attacker's data, at any share."""
        place = Place(defense, attack, recipe, auxiliary)
        if self.bits.get(place):
            return place
        if attack != CLEAN:
            return None
        others = [p for p in self.places.get(defense, ()) if p[1:3] == (attack, recipe) and self.bits[p]]
        return min(others, key=lambda p: p.auxiliary, default=None)

    def candidates(self, defense: Hashable, level: float) -> list[Place]:
        """What an attacker with at most `level` auxiliary data can choose from; these data alone are no choice, since
        nothing of the release is in what they give."""
        own = (place for place in self.places[defense] if place.attack != ALONE)
        return [place for place in own if place.auxiliary <= level and self.bits[place]]

    def mean(self, place: Place, seeds: Seeds) -> Draws:
        """Accuracy over these seeds."""
        key = (place, seeds)
        if key not in self._means:
            if place == ZERO_SHOT and self._zero is not None:
                self._means[key] = self._bootstrap.constant(*self._zero, len(seeds))
            else:
                points = [int(self.bits[place][seed].sum()) for seed in seeds]
                self._means[key] = self._bootstrap.mean(points, [self._answers[place, seed] for seed in seeds])
        return self._means[key]

    def minus(self, left: Place, right: Place, seeds: Seeds) -> Draws:
        """Paired difference of accuracies over these seeds."""
        return self.mean(left, seeds) - self.mean(right, seeds)

    def paired(self, left: Place, right: Place, seeds: Seeds) -> Estimate:
        """The estimate of `minus`."""
        key = (left, right, seeds)
        if key not in self._estimates:
            self._estimates[key] = self.minus(left, right, seeds).estimate()
        return self._estimates[key]

    def accuracy(self, place: Place | None, missing: str) -> Estimate:
        """Accuracy over all seeds of the place; undefined for the reason `missing` without a place."""
        if place is None:
            return Estimate(undefined=missing)
        if place not in self._accuracies:
            self._accuracies[place] = self.mean(place, self.common(place)).estimate()
        return self._accuracies[place]

    def difference(self, left: Place | None, right: Place | None, missing: str) -> Estimate:
        """Paired difference over the seeds that both have; undefined for the reason `missing` without one of them.

        `ZERO_SHOT` has no seeds of its own and goes with any.
        """
        if left is None or right is None:
            return Estimate(undefined=missing)
        seeds = self.common(*(place for place in (left, right) if place != ZERO_SHOT))
        return self.paired(left, right, seeds) if seeds else Estimate(undefined=NO_SEEDS)
