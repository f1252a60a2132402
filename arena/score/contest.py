"""Every score of the protocol for one contest: all cells that share a dataset and a model.

Notation: Z zero-shot, C clean fine-tuning, C(a) clean data put through attack a, P(d, a) the release of d put through
a. Only the resamples of one batch of defenses and of the clean controls are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from arena.controls import ALONE
from arena.score.cells import CLEAN, ZERO_SHOT, Cells, Place, Seeds
from arena.score.statistics import (
    FAILED,
    NO_BASELINE,
    NO_CONTROL,
    NO_GAIN,
    NO_PROTECTION,
    NO_SEEDS,
    NO_ZERO_SHOT,
    Bits,
    Bootstrap,
    Draws,
    Estimate,
    best,
    share,
)

NO_WORDS = "changes no question"
NO_RANDOM_WORDS = "no control of random words"
NO_OWN_DATA = "no clean data of the attacker's own"
NO_ALONE = "no control of own data alone"


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one cell; `drop_error` is the bootstrap standard error of the drop, None with under two seeds."""

    zero_shot: Estimate
    clean: Estimate
    clean_attacked: Estimate
    accuracy: Estimate
    gain: Estimate
    drop: Estimate
    paired_drop: Estimate
    attack_cost: Estimate
    protection: Estimate
    retention: Estimate
    over_random_words: Estimate
    release_adds: Estimate
    drop_error: float | None


@dataclass(frozen=True, slots=True)
class Robust:
    """What is left of a defense when the attacker, who has at most `auxiliary` clean data, chooses attack and recipe.

    The gain is that of the recipe that is best on clean data: the attacker chooses there too. `choice` is the cell the
    attacker chose, `accuracy` its accuracy (with the maximum taken anew in every resample), `candidates` how many cells
    there were to choose from, over `seeds`; `draws` are the resamples of `accuracy`.
    """

    defense: Hashable
    auxiliary: float
    accuracy: Estimate
    protection: Estimate
    robust_protection: Estimate
    robust_retention: Estimate
    choice: Place | None = None
    candidates: int = 0
    seeds: Seeds = ()
    draws: Draws | None = None


class Contest:
    """Scores of the cells of one dataset and model.

    `bits` holds per place and seed the correctness of every test item, shape ``(items,)``; a place whose seeds all
    failed has none. The cells of defense `CLEAN` are the controls. `random_words` has the defenses that change
    questions, each with the controls that insert as many words at random.
    """

    def __init__(
        self,
        bits: Mapping[Place, Mapping[int, Bits]],
        zero_shot: Bits | None,
        bootstrap: Bootstrap | None = None,
        random_words: Mapping[Hashable, Sequence[Hashable]] | None = None,
    ) -> None:
        self._random_words = random_words or {}
        controls = {control for own in self._random_words.values() for control in own}
        self._cells = Cells(bits, zero_shot, bootstrap, controls)
        self._tops: dict[tuple[float, Seeds], tuple[Draws, Draws, Estimate]] = {}

    def results(self) -> Iterator[tuple[dict[Place, Scores], list[Robust]]]:
        """Per defense: the scores of its cells, and its robust scores for every level of auxiliary data, rising.

        An attacker who has more auxiliary data can do whatever one with less can.
        """
        levels = sorted({place.auxiliary for place in self._cells.bits})
        for batch in self._cells.batches():
            self._cells.load(batch)
            for defense in batch:
                scores = {place: self._scores(place) for place in self._cells.places[defense]}
                least = min(place.auxiliary for place in scores)
                yield scores, [self._robust(defense, level) for level in levels if level >= least]
            self._cells.unload(batch)

    def rank_groups(self, ranked: Sequence[Robust]) -> list[int | None]:
        """Group numbers from 1 for robust scores sorted best first; None where the robust protection has no interval.

        A new group starts where the difference to the group's first is significant.
        """
        groups: list[int | None] = []
        leader, group = None, 0
        for robust in ranked:
            if robust.robust_protection.low is None:
                groups.append(None)
                continue
            if leader is None or self._is_weaker(robust, leader):
                leader, group = robust, group + 1
            groups.append(group)
        return groups

    def over_random_words(self, robust: Robust, every: Mapping[Hashable, Robust]) -> Estimate:
        """What an attacker who chooses reaches on random words, minus what they reach on a defense; `every` has the
        robust scores at the same share of clean data."""
        if robust.defense not in self._random_words:
            return Estimate(undefined=NO_WORDS)
        found = [every[control] for control in self._random_words[robust.defense] if control in every]
        if not found:
            return Estimate(undefined=NO_RANDOM_WORDS)
        control = min(found, key=lambda one: one.accuracy.value or 0.0)
        for one in (robust, control):
            if one.accuracy.value is None:
                return Estimate(undefined=one.accuracy.undefined)
        seeds = tuple(seed for seed in control.seeds if seed in robust.seeds)
        if not seeds:
            return Estimate(undefined=NO_SEEDS)
        return (self._top(control, seeds) - self._top(robust, seeds)).estimate()

    def _is_weaker(self, robust: Robust, leader: Robust) -> bool:
        # Both protections divide by the same gain, so the attacker's accuracies decide.
        seeds = tuple(seed for seed in leader.seeds if seed in robust.seeds)
        if len(seeds) < 2:
            return False
        return (self._top(robust, seeds) - self._top(leader, seeds)).estimate().positive

    def _top(self, robust: Robust, seeds: Seeds) -> Draws:
        if robust.draws is not None and robust.seeds == seeds:
            return robust.draws
        self._cells.load([robust.defense])
        means = [self._cells.mean(place, seeds) for place in self._cells.candidates(robust.defense, robust.auxiliary)]
        self._cells.unload([robust.defense])
        return best(means)[1]

    def _scores(self, place: Place) -> Scores:
        own = place if self._cells.bits[place] else None
        zero = None if not self._cells.has_zero_shot else ZERO_SHOT
        clean = self._cells.find(CLEAN, CLEAN, place.recipe, place.auxiliary)
        attacked = self._cells.find(CLEAN, place.attack, place.recipe, place.auxiliary)
        missing = FAILED if own is None else NO_CONTROL
        return Scores(
            zero_shot=self._cells.zero_shot,
            clean=self._cells.accuracy(clean, NO_CONTROL),
            clean_attacked=self._cells.accuracy(attacked, NO_CONTROL),
            accuracy=self._cells.accuracy(own, FAILED),
            gain=self._cells.difference(clean, zero, NO_CONTROL if clean is None else NO_ZERO_SHOT),
            drop=self._cells.difference(clean, own, missing),
            paired_drop=self._cells.difference(attacked, own, missing),
            attack_cost=self._cells.difference(clean, attacked, NO_CONTROL),
            protection=self._protection(clean, own),
            retention=self._retention(clean, attacked, own),
            over_random_words=self._over_random_words(place, own),
            release_adds=self._release_adds(place, own),
            drop_error=self._drop_error(clean, own),
        )

    def _over_random_words(self, place: Place, own: Place | None) -> Estimate:
        """Accuracy on the release of random words, minus that on the own one; of several the one that takes most."""
        if place.defense not in self._random_words:
            return Estimate(undefined=NO_WORDS)
        others = [self._cells.find(control, *place[1:]) for control in self._random_words[place.defense]]
        found = [other for other in others if other is not None]
        control = min(found, key=lambda other: self._cells.accuracy(other, FAILED).value or 0.0, default=None)
        return self._cells.difference(control, own, FAILED if own is None else NO_RANDOM_WORDS)

    def _release_adds(self, place: Place, own: Place | None) -> Estimate:
        """Accuracy with the attacker's own clean data, minus that on these alone."""
        if place.attack in (CLEAN, ALONE) or not place.auxiliary:
            return Estimate(undefined=NO_OWN_DATA)
        alone = (self._cells.find(of, ALONE, place.recipe, place.auxiliary) for of in (place.defense, CLEAN))
        control = next((found for found in alone if found is not None), None)
        return self._cells.difference(own, control, FAILED if own is None else NO_ALONE)

    def _drop_error(self, clean: Place | None, own: Place | None) -> float | None:
        if clean is None or own is None or len(seeds := self._cells.common(clean, own)) < 2:
            return None
        return self._cells.minus(clean, own, seeds).standard_error()

    def _protection(self, clean: Place | None, own: Place | None) -> Estimate:
        if undefined := self._undefined(clean, own):
            return Estimate(undefined=undefined)
        assert clean is not None and own is not None
        seeds = self._cells.common(clean, own)
        return self._share((clean, own), (clean, ZERO_SHOT), seeds, NO_GAIN)

    def _retention(self, clean: Place | None, attacked: Place | None, own: Place | None) -> Estimate:
        if undefined := self._undefined(clean, own) or (NO_CONTROL if attacked is None else None):
            return Estimate(undefined=undefined)
        assert clean is not None and own is not None and attacked is not None
        bare = self._cells.find(own.defense, CLEAN, own.recipe, own.auxiliary)
        if bare is None:
            return Estimate(undefined=NO_BASELINE)
        seeds = self._cells.common(clean, attacked, bare, own)
        if len(seeds) > 1 and not self._cells.paired(clean, ZERO_SHOT, seeds).positive:
            return Estimate(seeds=len(seeds), undefined=NO_GAIN)
        return self._share((attacked, own), (clean, bare), seeds, NO_PROTECTION)

    def _undefined(self, clean: Place | None, own: Place | None) -> str | None:
        if own is None:
            return FAILED
        if clean is None:
            return NO_CONTROL
        return NO_ZERO_SHOT if not self._cells.has_zero_shot else None

    def _share(self, part: tuple[Place, Place], whole: tuple[Place, Place], seeds: Seeds, reason: str) -> Estimate:
        if not seeds:
            return Estimate(undefined=NO_SEEDS)
        if part == whole and self._cells.paired(*whole, seeds).positive:
            return Estimate(1.0, 1.0, 1.0, len(seeds))
        return share(
            self._cells.minus(*part, seeds), self._cells.minus(*whole, seeds), self._cells.paired(*whole, seeds), reason
        )

    def _robust(self, defense: Hashable, level: float) -> Robust:
        candidates = self._cells.candidates(defense, level)
        recipes = sorted({place.recipe for place in self._cells.places.get(CLEAN, ())})
        controls = [p for recipe in recipes if (p := self._cells.find(CLEAN, CLEAN, recipe, level))]
        seeds = self._cells.common(*candidates, *controls) if candidates else ()
        reason = FAILED if not candidates else self._undefined(next(iter(controls), None), candidates[0])
        if not seeds:
            nothing = Estimate(undefined=reason or NO_SEEDS)
            return Robust(defense, level, nothing, nothing, nothing, nothing, candidates=len(candidates))
        chosen, top = best([self._cells.mean(place, seeds) for place in candidates])
        bare = [self._cells.mean(place, seeds) for place in candidates if place.attack == CLEAN]
        nothing = Estimate(seeds=len(seeds), undefined=reason)
        robust = Robust(
            defense, level, top.estimate(), nothing, nothing, nothing, candidates[chosen], len(candidates), seeds, top
        )
        if reason is not None:
            return robust
        clean, gain, gain_estimate = self._clean_top(controls, level, seeds)
        left = share(clean - top, gain, gain_estimate, NO_GAIN)
        if not bare:
            nothing = Estimate(seeds=len(seeds), undefined=NO_BASELINE)
            return replace(robust, robust_protection=left, protection=nothing, robust_retention=nothing)
        drop = clean - best(bare)[1]
        protection = share(drop, gain, gain_estimate, NO_GAIN)
        retention = share(clean - top, drop, protection, NO_PROTECTION) if protection.undefined is None else protection
        return replace(robust, robust_protection=left, protection=protection, robust_retention=retention)

    def _clean_top(self, controls: Sequence[Place], level: float, seeds: Seeds) -> tuple[Draws, Draws, Estimate]:
        """The best clean accuracy over recipes and its gain over zero-shot."""
        key = (level, seeds)
        if key not in self._tops:
            clean = best([self._cells.mean(place, seeds) for place in controls])[1]
            gain = clean - self._cells.mean(ZERO_SHOT, seeds)
            self._tops[key] = clean, gain, gain.estimate()
        return self._tops[key]
