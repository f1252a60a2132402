"""Bit depth reduction (image shortcut squeezing, Liu 2023, arXiv 2301.13838)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from PIL import Image, ImageOps
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class BitDepth(ImageAttack):
    """Only the highest bits of each pixel value are kept: with 2 bits the levels are 0, 64, 128 and 192.

    As the authors' code does (torchvision's `RandomPosterize`), values are cut off, not rounded: pictures get darker.
    """

    version = "2"

    class Config(PluginConfig):
        bits: int = Field(2, ge=1, le=8, description="bits per channel; 2 is the paper's")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_colours(image, partial(ImageOps.posterize, bits=self.config.bits)) for image in images)
