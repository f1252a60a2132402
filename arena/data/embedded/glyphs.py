"""The embedded fine-tuning task: which clan does a scene belong to?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arena.data.embedded.draw import drawn
from arena.data.embedded.question_kinds import KindsConfig, trained_kinds
from arena.data.embedded.scenes import SHAPES, Scene, ask, scene_of
from arena.data.sample import Sample, Splits
from arena.plugins.base import Dataset

QUESTIONS = (
    "which clan drew this picture?",
    "what clan does this scene belong to?",
    "name the clan of this picture.",
    "to which clan do these shapes belong?",
    "which clan is this?",
    "what is the name of the clan?",
    "whose clan mark is shown here?",
    "tell me which clan made this drawing.",
)

CLANS = dict(zip(SHAPES, ("fox", "owl", "bear", "wolf", "hawk", "deer"), strict=True))
"""The clan of a scene by the shape of its things."""


class Glyphs(Dataset):
    """Procedural scenes, 48 x 48 RGB, whose clan is a fixed function of the one shape that all its things have.

    The tiny models know the shapes and can say the animals' names, but nothing ties the two before fine-tuning. Classes
    are balanced within each split. A cross-task split may also ask what the tiny models know already: count,
    colour, shape and place. Pictures are drawn here; there is no licence to mind.
    """

    class Config(KindsConfig):
        known = ("clan", "count", "colour", "shape", "place")
        train_kinds: tuple[str, ...] = trained_kinds(("clan",))

    config: Config

    convention = "exact"
    packages = ("numpy", "pillow")

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Splits drawn from independent child seeds: one does not depend on the size of another.

        Sample i of split k (train, auxiliary, test) has the number 3 i + k. Raises `ArenaError` if a picture repeats.
        """
        children = np.random.SeedSequence(seed).spawn(3)
        kinds = (self.config.train_kinds, self.config.train_kinds, self.config.tested)
        parts = (
            _draw(np.random.default_rng(child), size, k, kinds[k])
            for k, (child, size) in enumerate(zip(children, (train, auxiliary, test), strict=True))
        )
        return drawn("glyphs", seed, parts)


def _draw(rng: np.random.Generator, size: int, split: int, kinds: Sequence[str]) -> tuple[Sample, ...]:
    samples = []
    for i, label in enumerate(rng.permutation(np.arange(size) % len(SHAPES))):
        scene, question, answer = _asked(rng, SHAPES[label], kinds[i % len(kinds)])
        samples.append(Sample(f"glyphs-{3 * i + split:05d}", scene.image, question, answer))
    return tuple(samples)


def _asked(rng: np.random.Generator, shape: str, kind: str) -> tuple[Scene, str, str]:
    """A scene of a shape and a question of a kind about it; scenes that do not allow it are drawn again."""
    while True:
        scene = scene_of(rng, shape)
        if kind == "clan":
            return scene, QUESTIONS[rng.integers(len(QUESTIONS))], CLANS[shape]
        if found := ask(scene, kind, rng):
            return scene, *found
