"""Grayscale (image shortcut squeezing, Liu 2023, arXiv 2301.13838)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

from arena.plugins.base import AttackerWorld, ImageAttack
from attacks.image.colour import on_colours


class Grayscale(ImageAttack):
    """Luma (ITU-R 601) in all three channels; size and mode stay."""

    packages = ("pillow",)

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_colours(image, lambda x: x.convert("L").convert(x.mode)) for image in images)
