"""The other control: noise of the protections' size that is about nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.data.sample import Sample
from arena.lvlm.perturbation import planes, random_uniform, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels


class RandomNoise(ImageDefense):
    """delta uniform in the L-infinity ball, independent of picture, question and answer; must protect nothing."""

    needs = frozenset({"seed"})

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        noise = random_uniform(samples, world.budget.epsilon, world.torch_generator())
        return (to_pixels(s.image, planes(s.image) + d) for s, d in zip(samples, noise, strict=True))
