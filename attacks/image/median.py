"""Median filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.ndimage import median_filter

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class Median(ImageAttack):
    """Each value becomes the median of a square around it, in each colour channel by itself; borders are mirrored.

    Single pixels that stand out go altogether, such as those of one-pixel shortcuts, and straight edges stay.
    """

    packages = ("scipy",)

    class Config(PluginConfig):
        radius: int = Field(1, ge=1, le=15, description="the square reaches as many pixels to each side: 1 is 3 x 3")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_colours(image, self._filtered) for image in images)

    def _filtered(self, image: Image.Image) -> Image.Image:
        values = np.asarray(image)
        side = 2 * self.config.radius + 1
        return Image.fromarray(median_filter(values, size=(side, side, 1)[: values.ndim], mode="reflect"))
