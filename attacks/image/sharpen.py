"""Unsharp masking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.ndimage import gaussian_filter

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import on_values


class Sharpen(ImageAttack):
    """``x + amount (x - G x)``, where G is a Gaussian blur; borders are mirrored and values clipped.

    It makes high frequencies stronger, those of a perturbation too: what is of use against it is what it clips.
    """

    packages = ("scipy",)

    class Config(PluginConfig):
        radius: float = Field(1.0, gt=0, le=64, description="standard deviation of the blur in pixels")
        amount: float = Field(
            1.0, gt=0, le=10, description="how much of the difference to the blurred picture is added"
        )

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._sharpened) for image in images)

    def _sharpened(self, x: np.ndarray) -> np.ndarray:
        radius = self.config.radius
        blurred: np.ndarray = gaussian_filter(x, (radius, radius, 0)[: x.ndim], mode="reflect")
        return np.asarray(x + np.float32(self.config.amount) * (x - blurred))
