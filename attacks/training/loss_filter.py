"""Loss filtering: leave out samples that are learned too fast, or never.

Samples that carry a shortcut are learned first (anti-backdoor learning isolates those of lowest loss early in training:
Li 2021, arXiv 2110.11571); samples that contradict the rest are learned last (small-loss selection: Han 2018, arXiv
1804.06872). While the first part of training runs as usual, each sample's loss is noted relative to the running mean m
of all losses at that moment, since the losses of one epoch are taken from a model that improves on the way:

    s_i = log(l_i / m) at the latest visit of sample i

Then the samples of lowest s ("too fast") and of highest s ("never") are dropped, or weigh less, for the rest of
training.

It is neither of the two methods. Anti-backdoor learning keeps the losses of fast samples apart by gradient ascent on
those below a threshold, ranks all samples by a pass of the model in evaluation mode, takes the lowest 1 %, and unlearns
them by gradient ascent in the end; here training is plain while it is watched, its own losses are ranked, more samples
are taken, and these are left out, not unlearned. Small-loss selection (co-teaching) trains two models, each of which
chooses the samples of every batch for the other, fewer and fewer of them; here one model chooses for itself, once, by
all that it has seen.
"""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from arena.plugins.base import Attack, AttackerWorld, PluginConfig, TrainingHooks
from arena.shares import at_most

WINDOW = 32
"""About how many of the latest losses make the running mean; a batch of that many is its own."""


class LossFilter(Attack):
    """Fine-tuning that drops the samples learned fastest and slowest after watching their losses for a while."""

    class Config(PluginConfig):
        watch: float = Field(
            0.25, gt=0, lt=1, description="first part of training: losses are noted, all samples count"
        )
        fastest: float = Field(0.2, ge=0, le=1, description="share of the samples to filter as learned too fast")
        slowest: float = Field(0.1, ge=0, le=1, description="share of the samples to filter as never learned")
        weight: float = Field(0.0, ge=0, le=1, description="of a filtered sample in the loss afterwards; 0 drops it")

        @model_validator(mode="after")
        def _keeps_some(self) -> Self:
            if self.fastest + self.slowest >= 1:
                raise ValueError("fastest and slowest together leave no sample: their sum must be below 1")
            return self

    config: Config

    def training(self, world: AttackerWorld) -> FilteringHooks:
        c = self.config
        return FilteringHooks(c.watch, c.fastest, c.slowest, c.weight)


class FilteringHooks(TrainingHooks):
    """Watches the losses of samples by their indices, then filters; settings as in `LossFilter.Config`.

    `filtered` holds the indices left out; it is empty while watching. A sample not seen until then is kept.
    """

    def __init__(self, watch: float, fastest: float, slowest: float, weight: float) -> None:
        self.watch, self.fastest, self.slowest, self.weight = watch, fastest, slowest, weight
        self.filtered: frozenset[int] = frozenset()
        self._scores: dict[int, float] = {}
        self._mean: float | None = None
        self._judged = False

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        losses, indices = lvlm.losses(batch), batch.indices.tolist()
        if progress < self.watch:
            self._note(indices, losses.tolist())
        elif not self._judged:
            self.filtered, self._judged = extremes(self._scores, self.fastest, self.slowest), True
        weights = losses.new_tensor([self.weight if i in self.filtered else 1.0 for i in indices])
        # The mean over answer tokens of plain training. It divides by all tokens, not by the weighted ones: in a batch
        # of one sample a weight would cancel.
        tokens = (batch.labels != IGNORE).sum(1)
        return (losses * tokens * weights).sum() / tokens.sum()

    def _note(self, indices: list[int], losses: list[float]) -> None:
        here = sum(losses) / len(losses)
        new = 1.0 if self._mean is None else min(1.0, len(losses) / WINDOW)
        self._mean = new * here + (1 - new) * (self._mean or 0.0)
        tiny = 1e-12  # a loss may underflow to 0
        self._scores |= {
            i: math.log(max(x, tiny) / max(self._mean, tiny)) for i, x in zip(indices, losses, strict=True)
        }


def extremes(scores: dict[int, float], lowest: float, highest: float) -> frozenset[int]:
    """The keys of the `lowest` and the `highest` share of scores, each rounded down; ties go by key."""
    order = sorted(scores, key=lambda i: (scores[i], i))
    low, high = at_most(lowest, len(order)), at_most(highest, len(order))
    return frozenset(order[:low] + order[len(order) - high :])
