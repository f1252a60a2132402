"""JPEG re-compression (image shortcut squeezing, Liu 2023, arXiv 2301.13838)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class Jpeg(ImageAttack):
    """Each picture is saved as JPEG and read back."""

    packages = ("pillow",)

    class Config(PluginConfig):
        quality: int = Field(10, ge=1, le=100, description="libjpeg quality; 10 is the paper's")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_colours(image, self._round_trip) for image in images)

    def _round_trip(self, image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.config.quality)
        with Image.open(buffer) as decoded:
            return decoded.copy()
