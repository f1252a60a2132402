"""What attackers who have a choice leave of a defense."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from arena.score.cells import Place, Seeds
from arena.score.statistics import NO_GAIN, NO_PROTECTION, Answers, Estimate, share

NO_CHOOSER = "no attack that chooses was tried"

_TINY = 1e-9
"""Stands for a denominator of zero, over which nothing is stated."""


@dataclass(frozen=True, slots=True)
class Attacked:
    """What an attacker reaches who has a choice: `choice` is the cell, `accuracy` its accuracy, `protection` the share
    of the gain that is denied all the same, `retention` that share of the drop without attack; `answers` are those
    behind `accuracy`, and `luck` is by how much the choice flatters the attacker (`best`)."""

    accuracy: Estimate
    protection: Estimate
    retention: Estimate
    choice: Place | None = None
    answers: Answers | None = None
    luck: float = 0.0

    @classmethod
    def without(cls, reason: str, seeds: int = 0) -> Attacked:
        """Of which nothing is stated, for a reason."""
        nothing = Estimate(seeds=seeds, undefined=reason)
        return cls(nothing, nothing, nothing)


@dataclass(frozen=True, slots=True)
class Robust:
    """What is left of a defense against an attacker who has at most `auxiliary` clean data and chooses attack and
    recipe; `protection` is that without attack.

    The gain is that of the recipe that is best on clean data: the attacker chooses there too. In the `worst` case the
    choice is made on test labels, as an oracle would, of `candidates` cells, over `seeds`; the intervals reach as far
    beyond as it flatters the attacker (`best`). `own` is what an attack reaches that chooses by what the attacker has,
    where such a one was run.
    """

    defense: Hashable
    auxiliary: float
    protection: Estimate
    worst: Attacked
    own: Attacked | None = None
    candidates: int = 0
    seeds: Seeds = ()

    @property
    def ranked(self) -> Attacked:
        """What boards rank by: the attacker's own choice where there is one, else the worst case."""
        return self.own or self.worst

    @property
    def robust_protection(self) -> Estimate:
        """The share of the gain that is denied under that choice."""
        return self.ranked.protection

    @property
    def regret(self) -> Estimate:
        """Accuracy that the attacker's own choice is short of the best one, that of the worst case; its interval
        reaches further down by what that one owes to luck."""
        if self.own is None:
            reason = self.worst.accuracy.undefined or NO_CHOOSER
            return Estimate(undefined=reason)
        if self.worst.answers is None or self.own.answers is None:
            return Estimate(undefined=self.worst.accuracy.undefined or self.own.accuracy.undefined)
        return (self.worst.answers - self.own.answers).estimate().reaching(below=self.worst.luck)

    def withheld(self, reason: str) -> Robust:
        """The scores without those that are about a choice."""
        return replace(self, worst=Attacked.without(reason), own=None)


@dataclass(frozen=True, slots=True)
class Against:
    """What attacks on a defense are measured against, over `seeds`: accuracy on clean data, its gain, and the drop and
    the protection without attack; what there is none of is None."""

    seeds: Seeds
    protection: Estimate
    clean: Answers | None = None
    gain: Answers | None = None
    gain_estimate: Estimate | None = None
    drop: Answers | None = None

    def left(self, top: Answers, luck: float) -> tuple[Estimate, Estimate]:
        """Protection and retention that are left where the attacker reaches `top`, which flatters them by `luck`."""
        if self.clean is None or self.gain is None or self.gain_estimate is None:
            return self.protection, self.protection
        part = self.clean - top
        protection = share(part, self.gain, self.gain_estimate, NO_GAIN).reaching(above=over(luck, self.gain))
        if self.drop is None or self.protection.undefined is not None:
            return protection, self.protection
        retention = share(part, self.drop, self.protection, NO_PROTECTION).reaching(above=over(luck, self.drop))
        return protection, retention


def over(luck: float, whole: Answers) -> float:
    """How far an interval of a share of `whole` reaches further by so much."""
    return luck / max(whole.mean, _TINY)
