"""The other control: noise of the protections' size that is about nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import floor

import numpy as np
from PIL import Image

from arena.data.colours import colours, recoloured
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
    """delta uniform in the L-infinity ball, independent of picture, question and answer; must protect nothing.

    Of a budget in pixels (l0): so many pixels of each picture, drawn anew, of colours uniform in [0, 1].

    Budget: any norm on pictures.
    """

    needs = frozenset({"seed"})

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        if world.budget.norm == "l0":
            return _dotted(samples, int(world.budget.image), world.rng())
        noise = random_uniform(samples, world.budget.epsilon, world.torch_generator())
        return (to_pixels(s.image, planes(s.image) + d) for s, d in zip(samples, noise, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Noise of the whole budget that is the same whatever the pictures show."""
        levels = floor(world.budget.image)
        grey = [s.with_content(Image.new(s.image.mode, s.image.size, GREY[s.image.mode]), s.question) for s in samples]
        noisy = build_release(grey, self.protect(grey, world), world.budget)
        if world.budget.norm == "l0":
            return _other_dots(samples, released, noisy)
        on_grey = changes(grey, noisy)
        for sample, noise, other in zip(samples, changes(samples, released), on_grey, strict=True):
            inside = free(sample, levels)
            if noise[inside].size and np.abs(noise[inside] - other[inside]).max() > 1:  # floats round as they may
                return f"the noise of sample {sample.id!r} is another one where the picture is grey"
        largest = max(int(np.abs(noise).max()) for noise in on_grey)
        return None if largest == levels else f"the largest change is {largest}/255, not {levels}/255"


def _dotted(samples: Sequence[Sample], pixels: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """The pictures with so many pixels of random colours, or all that they have."""
    for sample in samples:
        values = colours(sample.image).copy()
        height, width, channels = values.shape
        places = rng.choice(height * width, min(pixels, height * width), replace=False)
        values.reshape(-1, channels)[places] = rng.integers(0, 256, (len(places), channels))
        yield Image.fromarray(recoloured(sample.image, values))


def _other_dots(samples: Sequence[Sample], released: Sequence[Sample], noisy: Sequence[Sample]) -> str | None:
    """What is wrong where changed pixels are not those of the grey pictures `noisy`; None where they are."""
    moved = [change.any(2) for change in changes(samples, released)]
    for sample, after, other, where in zip(samples, released, noisy, moved, strict=True):
        if not np.array_equal(colours(after.image)[where], colours(other.image)[where]):
            return f"the pixels of sample {sample.id!r} that changed are others where the picture is grey"
    return None if any(where.any() for where in moved) else "no pixel changed"
