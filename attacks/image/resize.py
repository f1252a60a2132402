"""Resampling to a smaller size, as platforms and screens do it; MMGuard's and others' image transforms have it too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


class Resize(ImageAttack):
    """Each picture made smaller, and left so: by `scale`, and until no side is longer than `longest`.

    A platform that stores pictures of at most 1,080 pixels a side is ``longest: 1080``, a screenshot of a picture that
    is shown at seven tenths of its size ``scale: 0.7`` with the filter bilinear. The alpha channel is resized too.
    """

    packages = ("pillow",)

    class Config(PluginConfig):
        scale: float = Field(1.0, gt=0, le=1, description="sides of the result as a share of the picture's")
        longest: int | None = Field(None, ge=1, description="pixels that a side of the result has at most")
        filter: Literal["lanczos", "bicubic", "bilinear"] = Field("lanczos", description="how pixels are resampled")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return map(self._resized, images)

    def _resized(self, image: Image.Image) -> Image.Image:
        scale = self.config.scale
        if self.config.longest is not None:
            scale = min(scale, self.config.longest / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        return image if (width, height) == image.size else image.resize((width, height), FILTERS[self.config.filter])
