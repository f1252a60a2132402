"""The other control: noise of the protections' size that is about nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor

import numpy as np
from PIL import Image

from arena.data.sample import Sample
from arena.lvlm.perturbation import planes, random_uniform, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels
from arena.release import build_release
from defenses.claims import changes, free

GREY: dict[str, float | tuple[float, ...]] = {
    "L": 128,
    "LA": (128, 255),
    "RGB": (128,) * 3,
    "RGBA": (128, 128, 128, 255),
}


class RandomNoise(ImageDefense):
    """delta uniform in the L-infinity ball, independent of picture, question and answer; must protect nothing."""

    needs = frozenset({"seed"})

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        noise = random_uniform(samples, world.budget.epsilon, world.torch_generator())
        return (to_pixels(s.image, planes(s.image) + d) for s, d in zip(samples, noise, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Noise of the whole budget that is the same whatever the pictures show."""
        levels = floor(world.budget.image)
        grey = [s.with_content(Image.new(s.image.mode, s.image.size, GREY[s.image.mode]), s.question) for s in samples]
        on_grey = changes(grey, build_release(grey, self.protect(grey, world), world.budget))
        for sample, noise, other in zip(samples, changes(samples, released), on_grey, strict=True):
            inside = free(sample, levels)
            if noise[inside].size and np.abs(noise[inside] - other[inside]).max() > 1:  # floats round as they may
                return f"the noise of sample {sample.id!r} is another one where the picture is grey"
        largest = max(int(np.abs(noise).max()) for noise in on_grey)
        return None if largest == levels else f"the largest change is {largest}/255, not {levels}/255"
