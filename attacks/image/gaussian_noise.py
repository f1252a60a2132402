"""Additive Gaussian noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import on_values


class GaussianNoise(ImageAttack):
    """Independent normal noise on every value of every channel, then clipped to the range of colours.

    The noise of a picture is drawn from the seed and the picture's own bytes: it depends neither on the order of the
    pictures nor on other ones, and equal pictures get equal noise.
    """

    needs = frozenset({"seed"})
    packages = ("numpy",)

    class Config(PluginConfig):
        sigma: float = Field(
            0.05, gt=0, le=1, description="standard deviation as a share of the range of colours: 0.05 is 12.75 of 255"
        )

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (self._noised(image, world.seed) for image in images)

    def _noised(self, image: Image.Image, seed: int) -> Image.Image:
        content = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).digest()
        rng = np.random.default_rng([seed, int.from_bytes(content[:16])])

        def noised(x: np.ndarray) -> np.ndarray:
            return np.asarray(x + np.float32(self.config.sigma) * rng.standard_normal(x.shape, np.float32))

        return on_values(image, noised)
