"""Attacks that ask how much noise a picture has, and the answer from its finest wavelets (Donoho and Johnstone
1994)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import pywt
from PIL import Image
from pydantic import Field

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import mirrored, on_values

LEAST = 16
"""Sides that the wavelet is laid over, in pixels; smaller pictures are mirrored."""
ROUNDING = 1e-5
"""Levels that are a smaller share of the largest value are rounding in single precision."""
NORMAL = 0.6745
"""The median of the absolute value of a standard normal variable."""


def noise_level(values: np.ndarray) -> float:
    """Standard deviation of white noise in ``(H, W)`` or ``(H, W, C)``, in the units of the values: the median of the
    absolute diagonal coefficients of the finest level (db2) over 0.6745, a mean over channels.

    It is 0 where most of a picture is flat, whatever stands in the rest, and where it is no more than rounding.
    """
    _, (_, _, diagonal) = pywt.dwt2(mirrored(values, LEAST), "db2", axes=(0, 1))
    level = float((np.median(np.abs(diagonal), axis=(0, 1)) / NORMAL).mean())
    return level if level > ROUNDING * float(np.abs(values).max()) else 0.0


class OfNoiseLevel(ImageAttack):
    """A filter whose strength follows the noise: the level is estimated for each picture, unless it is set. Where the
    estimate is 0, as it is where most of a picture is flat, the picture stays as it is."""

    class Config(PluginConfig):
        sigma: float | None = Field(
            None,
            gt=0,
            le=1,
            description="standard deviation of the noise, of colours in [0, 1]; estimated where not set",
        )

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._where_noisy) for image in images)

    def _where_noisy(self, x: np.ndarray) -> np.ndarray:
        sigma = noise_level(x) if self.config.sigma is None else self.config.sigma
        return self.denoised(x, sigma) if sigma > 0 else x

    @abstractmethod
    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Colours in [0, 1], float32 ``(H, W)`` or ``(H, W, 3)``, without noise of the standard deviation `sigma`."""
