"""Gaussian blur."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.colour import on_colours


class Blur(ImageAttack):
    """Convolution with a Gaussian, borders reflected; the kernel reaches three standard deviations."""

    packages = ("kornia",)

    class Config(PluginConfig):
        sigma: float = Field(1.0, gt=0, le=64, description="standard deviation in pixels")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_colours(image, self._blur) for image in images)

    def _blur(self, image: Image.Image) -> Image.Image:
        x = np.array(image, np.float32)
        sigma = self.config.sigma
        sides = [min(2 * int(np.ceil(3 * sigma)) + 1, 2 * size - 1) for size in x.shape[:2]]
        stacked = torch.from_numpy(x.reshape(*x.shape[:2], -1)).permute(2, 0, 1)[None]
        blurred = gaussian_blur2d(stacked, (sides[0], sides[1]), (sigma, sigma))[0].permute(1, 2, 0)
        return Image.fromarray(blurred.round().clamp(0, 255).byte().numpy().reshape(x.shape))
