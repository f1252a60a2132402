"""Random crop and pad: RCP of MMGuard (arXiv 2605.14291, adaptive attacks), which does not spell the name out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class CropPad(ImageAttack):
    """A part of the picture, cut out at a random place, at another random place of a picture of the same size.

    Both places are drawn uniformly, for each picture by a generator of its own: they do not depend on other pictures.
    Around the part its edge is repeated. A black border is a setting: to a model that never saw one it costs more than
    crop and shift do, and hides what these are worth.
    """

    version = "2"
    needs = frozenset({"seed"})
    packages = ("numpy",)

    class Config(PluginConfig):
        side: float = Field(0.9, gt=0, le=1, description="sides of the crop as a share of the picture's")
        border: Literal["edge", "black"] = Field(
            "edge", description="what is around the crop: its outermost pixels again, or black"
        )

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        for image, rng in zip(images, world.rng().spawn(len(images)), strict=True):
            sizes = [max(1, round(self.config.side * size)) for size in image.size]
            room = [size - crop + 1 for size, crop in zip(image.size, sizes, strict=True)]
            source, target = rng.integers(room), rng.integers(room)
            yield on_colours(image, partial(self._moved, source=source, sizes=sizes, target=target))

    def _moved(self, image: Image.Image, source: np.ndarray, sizes: list[int], target: np.ndarray) -> Image.Image:
        """The part of `sizes` at `source`, put at `target`; all are (x, y)."""
        (left, top), (x, y), (width, height) = source.tolist(), target.tolist(), sizes
        part = np.asarray(image)[top : top + height, left : left + width]
        around = [(y, image.height - y - height), (x, image.width - x - width), (0, 0)][: part.ndim]
        return Image.fromarray(np.pad(part, around, mode="edge" if self.config.border == "edge" else "constant"))
