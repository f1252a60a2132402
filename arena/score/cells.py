"""The cells of one contest (one dataset and model), looked up by many scores."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from arena.controls import ALONE
from arena.score.statistics import NO_SEEDS, NO_ZERO_SHOT, Answers, Bits, Estimate

CLEAN = "none"
"""The defense that changes nothing and, as an attack label, no attack."""

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
    """Answers by place and seeds; `bits` holds per place and seed the correctness of every test item, ``(items,)``."""

    def __init__(self, bits: Mapping[Place, Mapping[int, Bits]], zero_shot: Bits | None) -> None:
        self.bits = bits
        self.places: dict[Hashable, list[Place]] = {}
        self._seeds = {place: tuple(sorted(seeds)) for place, seeds in bits.items()}
        for place in bits:
            self.places.setdefault(place.defense, []).append(place)
        self._answers: dict[tuple[Place, Seeds], Answers] = {}
        self._accuracies: dict[Place, Estimate] = {}
        self._differences: dict[tuple[Place, Place, Seeds], tuple[Answers, Estimate]] = {}
        self._zero = zero_shot
        self.zero_shot = Estimate(undefined=NO_ZERO_SHOT)
        if zero_shot is not None:  # the same twice: its interval is over items alone
            self.zero_shot = replace(Answers(np.stack([zero_shot] * 2)).estimate(), seeds=0)

    @property
    def has_zero_shot(self) -> bool:
        """Whether the model was scored before fine-tuning."""
        return self._zero is not None

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

    def answers(self, place: Place, seeds: Seeds) -> Answers:
        """Which items were answered right, by these seeds; those of `ZERO_SHOT` are the same for each."""
        key = (place, seeds)
        if key not in self._answers:
            if place == ZERO_SHOT and self._zero is not None:
                rows = [self._zero] * len(seeds)
            else:
                rows = [self.bits[place][seed] for seed in seeds]
            self._answers[key] = Answers(np.stack(rows))
        return self._answers[key]

    def minus(self, left: Place, right: Place, seeds: Seeds) -> Answers:
        """Paired difference over these seeds."""
        return self._difference(left, right, seeds)[0]

    def paired(self, left: Place, right: Place, seeds: Seeds) -> Estimate:
        """The estimate of `minus`."""
        return self._difference(left, right, seeds)[1]

    def _difference(self, left: Place, right: Place, seeds: Seeds) -> tuple[Answers, Estimate]:
        key = (left, right, seeds)
        if key not in self._differences:
            answers = self.answers(left, seeds) - self.answers(right, seeds)
            self._differences[key] = answers, answers.estimate()
        return self._differences[key]

    def accuracy(self, place: Place | None, missing: str) -> Estimate:
        """Accuracy over all seeds of the place; undefined for the reason `missing` without a place."""
        if place is None:
            return Estimate(undefined=missing)
        if place not in self._accuracies:
            self._accuracies[place] = self.answers(place, self._seeds[place]).estimate()
        return self._accuracies[place]

    def difference(self, left: Place | None, right: Place | None, missing: str) -> Estimate:
        """Paired difference over the seeds that both have; undefined for the reason `missing` without one of them.

        `ZERO_SHOT` has no seeds of its own and goes with any.
        """
        if left is None or right is None:
            return Estimate(undefined=missing)
        seeds = self.common(*(place for place in (left, right) if place != ZERO_SHOT))
        return self.paired(left, right, seeds) if seeds else Estimate(undefined=NO_SEEDS)

    def forget(self, defense: Hashable) -> None:
        """Free what was worked out for a defense; what is known of the controls stays."""
        if defense == CLEAN:
            return
        self._answers = {key: kept for key, kept in self._answers.items() if key[0].defense != defense}
        self._accuracies = {place: kept for place, kept in self._accuracies.items() if place.defense != defense}
        self._differences = {
            key: kept for key, kept in self._differences.items() if defense not in (key[0].defense, key[1].defense)
        }
