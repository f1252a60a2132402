"""Bit depth reduction (image shortcut squeezing, Liu 2023, arXiv 2301.13838)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class BitDepth(ImageAttack):
    """Pixel values rounded to the nearest of 2^bits evenly spaced levels from 0 to 255."""

    class Config(PluginConfig):
        bits: int = Field(2, ge=1, le=8, description="bits per channel; 2 is the paper's")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        top = 2**self.config.bits - 1
        table = np.rint(np.rint(np.arange(256) / 255 * top) / top * 255).astype(int).tolist()
        return (on_colours(image, lambda x: x.point(table * len(x.getbands()))) for image in images)
