"""Random crop and pad: RCP of MMGuard (arXiv 2605.14291, adaptive attacks), which does not spell the name out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class CropPad(ImageAttack):
    """A part of the picture, cut out at a random place, on black of the picture's size, at another random place.

    Both places are drawn uniformly, for each picture by a generator of its own: they do not depend on other pictures.
    """

    needs = frozenset({"seed"})
    packages = ("numpy",)

    class Config(PluginConfig):
        side: float = Field(0.9, gt=0, le=1, description="sides of the crop as a share of the picture's")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        for image, rng in zip(images, world.rng().spawn(len(images)), strict=True):
            sizes = [max(1, round(self.config.side * size)) for size in image.size]
            room = [size - crop + 1 for size, crop in zip(image.size, sizes, strict=True)]
            source, target = rng.integers(room), rng.integers(room)
            yield on_colours(image, partial(_moved, source=source, sizes=sizes, target=target))


def _moved(image: Image.Image, source: np.ndarray, sizes: list[int], target: np.ndarray) -> Image.Image:
    """The part of `sizes` at `source`, put at `target` on black; all are (x, y)."""
    (left, top), (width, height) = source.tolist(), sizes
    canvas = Image.new(image.mode, image.size)
    canvas.paste(image.crop((left, top, left + width, top + height)), tuple(target.tolist()))
    return canvas
