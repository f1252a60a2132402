"""Whether an entry does on data that nobody knew what it does on the public data.

An effect is a paired difference of accuracies, on the same seeds and test items: what a defense takes from a fine-tuner
against the control, or what an attack gives back. On the public side all seeds share one draw of the data, on the
secret side every seed has a draw of its own. So the spread of the secret effects holds whatever makes one draw differ
from another, and the public result is judged as one more draw (a prediction interval): the difference of the means has
the variance

    max(items_public^2 + s_public^2 / S_public,  s_secret^2)  +  max(items_secret^2,  s_secret^2 / S_secret),

in which ``items`` is the standard error over test items alone, ``s`` the standard deviation over seeds and
``S`` their number. The interval is Student's t, with degrees of freedom after Welch and Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arena.score.statistics import CONFIDENCE, Bits


@dataclass(frozen=True, slots=True)
class Effect:
    """A paired difference of accuracies: its mean, the value of every seed, and the standard error over test items."""

    value: float
    seeds: tuple[float, ...]
    items_error: float

    @property
    def spread(self) -> float:
        """Standard deviation over seeds."""
        return float(np.std(self.seeds, ddof=1))

    @property
    def error(self) -> float:
        """Standard error over items and seeds."""
        return math.hypot(self.items_error, self.spread / math.sqrt(len(self.seeds)))


@dataclass(frozen=True, slots=True)
class Difference:
    """The secret effect minus the public one, with its interval. `telling` is whether the interval could show anything:
    not where the public effect is real, and the interval holds both the same effect and none at all."""

    value: float
    low: float
    high: float
    telling: bool

    @property
    def beyond(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0 <= self.high


def effect(more: Sequence[Bits], less: Sequence[Bits], one_draw: bool) -> Effect:
    """The accuracy of `more` minus that of `less`, at least two seeds of both, each ``(items,)``; the seeds have the
    same test items in `one_draw`, else each its own."""
    seeds = tuple(float(np.mean(a)) - float(np.mean(b)) for a, b in zip(more, less, strict=True))
    each = np.stack(list(more)).astype(np.float64) - np.stack(list(less))
    count, items = each.shape
    variance = float(each.mean(axis=0).var()) if one_draw else float(each.var(axis=1).sum()) / count**2
    return Effect(float(np.mean(seeds)), seeds, math.sqrt(variance / items))


def difference(public: Effect, secret: Effect, comparisons: int = 1) -> Difference:
    """How far the secret effect is from the public one, at 95 % for all of so many `comparisons` together
    (Bonferroni)."""
    level = 1 - (1 - CONFIDENCE) / comparisons
    own = secret.spread**2, len(secret.seeds) - 1
    once = max((public.error**2, len(public.seeds) - 1), own)
    mean = max(secret.items_error**2, own[0] / len(secret.seeds)), own[1]
    value = secret.value - public.value
    half = _half([once, mean], level)
    real = abs(public.value) > _half([(public.error**2, len(public.seeds) - 1)], CONFIDENCE)
    low, high = value - half, value + half
    return Difference(value, low, high, not (real and low <= 0 <= high and low <= -public.value <= high))


def _half(parts: Sequence[tuple[float, int]], level: float) -> float:
    """Half the width of the interval of a sum, from its parts' variances and degrees of freedom."""
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
