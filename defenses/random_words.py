"""The control of triggers: words that are about nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Defense, Draft, PluginConfig, setting
from defenses.random import GREY
from mmguard.trigger import (
    Position,
    Trigger,
    admissible_vocabulary,
    gaps_of,
    initial_trigger,
    insert,
    trigger_in,
)


class RandomWords(Defense):
    """As many admissible words as the budget allows, drawn at random; pictures are left alone, nothing is crafted.

    What insertion alone does to fine-tuning: questions that are trained on look otherwise than those that are asked.
    Under the same seed and surrogate they are the words that MMGuard begins with.

    Budget: words in questions.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(PluginConfig):
        position: Position = setting(
            "suffix", description="where in the question the words stand; random is between its words"
        )

    config: Config

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        gaps = gaps_of(samples, self.config.position, world.seed, 0)
        triggers = self._drawn(samples, gaps, world)
        return (Draft(s.image, insert(s.question, t, g)[0]) for s, t, g in zip(samples, triggers, gaps, strict=True))

    def _drawn(self, samples: Sequence[Sample], gaps: Sequence[int], world: DefenderWorld) -> list[Trigger]:
        lvlm, budget = world.surrogates()[0], world.budget
        vocabulary = admissible_vocabulary(lvlm)
        return [
            initial_trigger(
                s, budget.text, gap, vocabulary, lvlm.tokenizer, np.random.default_rng([world.seed, i, 1]), budget
            )
            for i, (s, gap) in enumerate(zip(samples, gaps, strict=True))
        ]

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Only questions change, by words in their place that are the same whatever the pictures show."""
        gaps = gaps_of(samples, self.config.position, world.seed, 0)
        grey = [s.with_content(Image.new(s.image.mode, s.image.size, GREY[s.image.mode]), s.question) for s in samples]
        drawn = self._drawn(grey, gaps, world)
        for sample, other, gap, words in zip(samples, released, gaps, drawn, strict=True):
            if sample.image.tobytes() != other.image.tobytes():
                return f"the picture of sample {sample.id!r} changed"
            if trigger_in(sample.question, other.question, gap) != words:
                return f"the words in the question of sample {sample.id!r} are others where the picture is grey"
        return None if any(drawn) else "no words were inserted"
