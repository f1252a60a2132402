"""Every score of the protocol for one contest: all cells that share a dataset and a model.

Notation: Z zero-shot, C clean fine-tuning, C(a) clean data put through attack a, P(d, a) the release of d put through
a.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from arena.controls import ALONE
from arena.score.attacked import Against, Attacked, Robust, over
from arena.score.cells import CLEAN, ZERO_SHOT, Cells, Place, Seeds
from arena.score.statistics import (
    FAILED,
    NO_BASELINE,
    NO_CONTROL,
    NO_GAIN,
    NO_PROTECTION,
    NO_SEEDS,
    NO_ZERO_SHOT,
    Answers,
    Bits,
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
    """The scores of one cell; `detectable` is the smallest drop that its cells could show (`Error.detectable`), None
    with under two seeds."""

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
    detectable: float | None


class Contest:
    """Scores of the cells of one dataset and model.

    `bits` holds per place and seed the correctness of every test item, shape ``(items,)``; a place whose seeds all
    failed has none. The cells of defense `CLEAN` are the controls. `choosers` are labels of attacks that choose by
    what the attacker has what to do about a release; `left_out` are attacks, each with a recipe, that no attacker is
    taken to choose. `random_words` has the defenses that change questions, each with the controls that insert as many
    words at random. `sweeps` are recipes that are a choice among others by what the attacker has.
    """

    def __init__(
        self,
        bits: Mapping[Place, Mapping[int, Bits]],
        zero_shot: Bits | None,
        choosers: Collection[str] = frozenset(),
        left_out: Collection[tuple[str, str]] = frozenset(),
        random_words: Mapping[Hashable, Sequence[Hashable]] | None = None,
        sweeps: Collection[str] = (),
    ) -> None:
        self._cells = Cells(bits, zero_shot)
        self._left_out = left_out
        self._choosers = choosers
        self._random_words = random_words or {}
        self._sweeps = sweeps
        self._tops: dict[tuple[float, Seeds], tuple[Answers, Answers, Estimate]] = {}

    def results(self) -> Iterator[tuple[dict[Place, Scores], list[Robust]]]:
        """Per defense: the scores of its cells, and its robust scores for every level of auxiliary data, rising.

        An attacker who has more auxiliary data can do whatever one with less can.
        """
        levels = sorted({place.auxiliary for place in self._cells.bits})
        for defense, places in self._cells.places.items():
            scores = {place: self._scores(place) for place in places}
            least = min(place.auxiliary for place in scores)
            yield scores, [self._robust(defense, level) for level in levels if level >= least]
            self._cells.forget(defense)

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
        control = min(found, key=lambda one: one.ranked.accuracy.value or 0.0)
        for one in (robust, control):
            if one.ranked.accuracy.value is None:
                return Estimate(undefined=one.ranked.accuracy.undefined)
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

    def _top(self, robust: Robust, seeds: Seeds) -> Answers:
        ranked = robust.ranked
        if ranked.answers is not None and robust.seeds == seeds:
            return ranked.answers
        places = self._candidates(robust.defense, robust.auxiliary)
        if robust.own is not None:
            places = self._own(places)
        found = [self._cells.answers(place, seeds) for place in places]
        return found[best(found)[0]]

    def _candidates(self, defense: Hashable, level: float) -> list[Place]:
        found = self._cells.candidates(defense, level)
        return [place for place in found if (place.attack, place.recipe) not in self._left_out]

    def _own(self, places: Sequence[Place]) -> list[Place]:
        """Those with an attack that chooses itself, and where a sweep chooses the recipe, by that."""
        own = [place for place in places if place.attack in self._choosers]
        return [place for place in own if place.recipe in self._sweeps] or own

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
            detectable=self._detectable(clean, own),
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
        if place.attack in (CLEAN, ALONE) or not place.auxiliary or math.isinf(place.auxiliary):
            return Estimate(undefined=NO_OWN_DATA)
        alone = (self._cells.find(of, ALONE, place.recipe, place.auxiliary) for of in (place.defense, CLEAN))
        control = next((found for found in alone if found is not None), None)
        return self._cells.difference(own, control, FAILED if own is None else NO_ALONE)

    def _detectable(self, clean: Place | None, own: Place | None) -> float | None:
        if clean is None or own is None or len(seeds := self._cells.common(clean, own)) < 2:
            return None
        return self._cells.minus(clean, own, seeds).error.detectable

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
        candidates = self._candidates(defense, level)
        recipes = sorted({place.recipe for place in self._cells.places.get(CLEAN, ())})
        controls = [p for recipe in recipes if (p := self._cells.find(CLEAN, CLEAN, recipe, level))]
        seeds = self._cells.common(*candidates, *controls) if candidates else ()
        reason = FAILED if not candidates else self._undefined(next(iter(controls), None), candidates[0])
        if not seeds:
            nothing = Attacked.without(reason or NO_SEEDS)
            return Robust(defense, level, nothing.protection, nothing, candidates=len(candidates))
        protection = Estimate(seeds=len(seeds), undefined=reason)
        against = Against(seeds, protection)
        if reason is None:
            against = self._against(candidates, controls, level, seeds)
            protection = against.protection
        worst, own = (self._attacked(places, against) for places in (candidates, self._own(candidates)))
        assert worst is not None
        return Robust(defense, level, protection, worst, own, len(candidates), seeds)

    def _against(self, candidates: Sequence[Place], controls: Sequence[Place], level: float, seeds: Seeds) -> Against:
        """What an attack on a defense is measured against."""
        clean, gain, gain_estimate = self._clean_top(controls, level, seeds)
        bare = [self._cells.answers(place, seeds) for place in candidates if place.attack == CLEAN]
        if not bare:
            nothing = Estimate(seeds=len(seeds), undefined=NO_BASELINE)
            return Against(seeds, nothing, clean, gain, gain_estimate)
        first, flattered = best(bare)
        drop = clean - bare[first]
        protection = share(drop, gain, gain_estimate, NO_GAIN).reaching(above=over(flattered, gain))
        return Against(seeds, protection, clean, gain, gain_estimate, drop)

    def _attacked(self, places: Sequence[Place], against: Against) -> Attacked | None:
        """What the best of some cells reaches; None of none."""
        if not places:
            return None
        answers = [self._cells.answers(place, against.seeds) for place in places]
        chosen, luck = best(answers)
        top = answers[chosen]
        accuracy = top.estimate().reaching(below=luck)
        protection, retention = against.left(top, luck)
        return Attacked(accuracy, protection, retention, places[chosen], top, luck)

    def _clean_top(self, controls: Sequence[Place], level: float, seeds: Seeds) -> tuple[Answers, Answers, Estimate]:
        """The best clean accuracy over recipes and its gain over zero-shot."""
        key = (level, seeds)
        if key not in self._tops:
            found = [self._cells.answers(place, seeds) for place in controls]
            clean = found[best(found)[0]]
            gain = clean - self._cells.answers(ZERO_SHOT, seeds)
            self._tops[key] = clean, gain, gain.estimate()
        return self._tops[key]
