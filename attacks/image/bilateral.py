"""Bilateral filter (Tomasi and Manduchi 1998).

Written out here: with a window of odd sides `skimage.restoration.denoise_bilateral` 0.26 moves the picture by several
pixels, as its answer to a single bright pixel shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import on_values

BAND = 2**16
"""Pixels that are filtered at once, a row at least."""


class Bilateral(ImageAttack):
    """A mean over neighbours, weighted by two Gaussians, of their distance and of how much their colours differ.

    ``y_p = sum_q w_pq x_q / sum_q w_pq`` with ``w_pq = exp(-|p - q|^2 / 2 sigma_spatial^2 - |x_p - x_q|^2 / 2
    sigma_color^2)``. What differs by much more than `sigma_color` does not mix, so edges stay. The window is a square
    that reaches three `sigma_spatial` to each side; beyond the borders the outermost pixels are repeated.
    """

    packages = ("numpy",)

    class Config(PluginConfig):
        sigma_color: float = Field(
            0.1, ge=0.001, le=2, description="standard deviation between colours, channels in [0, 1]"
        )
        sigma_spatial: float = Field(1.5, gt=0, le=16, description="standard deviation between places in pixels")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._filtered) for image in images)

    def _filtered(self, x: np.ndarray) -> np.ndarray:
        reach = int(np.ceil(3 * self.config.sigma_spatial))
        planes = np.atleast_3d(x).transpose(2, 0, 1)
        around = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        rows = max(1, BAND // x.shape[1])
        bands = [
            self._means(around[:, top : top + rows + 2 * reach], reach)  # the last band has what is left
            for top in range(0, x.shape[0], rows)
        ]
        return np.concatenate(bands, axis=1).transpose(1, 2, 0).reshape(x.shape)

    def _means(self, around: np.ndarray, reach: int) -> np.ndarray:
        """The weighted means ``(C, H, W)`` of ``(C, H + 2 reach, W + 2 reach)``."""
        height, width = (side - 2 * reach for side in around.shape[1:])
        near, alike = (-0.5 / sigma**2 for sigma in (self.config.sigma_spatial, self.config.sigma_color))
        centre = around[:, reach : reach + height, reach : reach + width]
        total, weights = np.zeros_like(centre), np.zeros_like(centre[0])
        for y in range(2 * reach + 1):
            for u in range(2 * reach + 1):
                neighbour = around[:, y : y + height, u : u + width]
                apart = np.square(neighbour - centre).sum(0)
                weight = np.exp(np.float32(alike) * apart + np.float32(near * ((y - reach) ** 2 + (u - reach) ** 2)))
                total += weight * neighbour
                weights += weight
        mean: np.ndarray = total / weights
        return mean
