"""A low-pass filter in the Fourier domain (Butterworth)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.fft import dctn, idctn

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import on_values


class FrequencyFilter(ImageAttack):
    """Frequencies above a cutoff go: each is multiplied by ``1 / (1 + (f / cutoff)^(2 order))``.

    f is the length of the frequency's vector in cycles per pixel, 0.5 for stripes of one pixel. The picture is mirrored
    at its borders, so that no edge arises where it would be repeated; the Fourier transform of that is the cosine
    transform of the picture.
    """

    packages = ("scipy",)

    class Config(PluginConfig):
        cutoff: float = Field(
            0.25, ge=0.01, le=0.5, description="frequency of which half the amplitude is left, in cycles per pixel"
        )
        order: int = Field(4, ge=1, le=64, description="how steep the filter falls; a high one leaves rings at edges")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._filtered) for image in images)

    def _filtered(self, x: np.ndarray) -> np.ndarray:
        height, width = x.shape[:2]
        rows, columns = np.arange(height) / (2 * height), np.arange(width) / (2 * width)
        frequency = np.hypot(rows[:, None], columns)
        response = (1 / (1 + (frequency / self.config.cutoff) ** (2 * self.config.order))).astype(np.float32)
        response = response.reshape(height, width, *[1] * (x.ndim - 2))
        filtered: np.ndarray = idctn(dctn(x, axes=(0, 1)) * response, axes=(0, 1))
        return filtered
