"""Wavelet denoising with the thresholds of BayesShrink (Chang, Yu and Vetterli 2000)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field
from skimage.restoration import denoise_wavelet

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.noise_level import noise_level
from attacks.image.values import channels, mirrored, on_values

LEAST = 32
"""Pixels of a side that every wavelet can be laid over; smaller pictures are mirrored."""


class Wavelet(ImageAttack):
    """Wavelet coefficients shrink towards zero, by a threshold for each level and direction, and small ones go.

    The threshold is ``sigma^2 / sigma_x``, where ``sigma_x^2`` is the coefficients' variance less that of the noise.
    Colours are denoised as luma and two chromas. Sigma is estimated for each picture from its finest coefficients,
    unless it is set. Where the estimate is 0, as it is where most of a picture is flat, the picture stays as it is.
    """

    packages = ("scikit-image", "pywavelets")

    class Config(PluginConfig):
        sigma: float | None = Field(
            None,
            gt=0,
            le=1,
            description="standard deviation of the noise, of colours in [0, 1]; estimated where not set",
        )
        wavelet: Literal["db1", "db2", "db4", "sym4"] = Field("sym4", description="name of the wavelet in PyWavelets")
        mode: Literal["soft", "hard"] = Field("soft", description="whether large coefficients shrink too")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._denoised) for image in images)

    def _denoised(self, x: np.ndarray) -> np.ndarray:
        sigma = noise_level(x) if self.config.sigma is None else self.config.sigma
        if sigma == 0:
            return x
        denoised: np.ndarray = denoise_wavelet(
            mirrored(x, LEAST),
            sigma=sigma,
            wavelet=self.config.wavelet,
            mode=self.config.mode,
            method="BayesShrink",
            convert2ycbcr=x.ndim == 3,
            channel_axis=channels(x),
        )
        return denoised[: x.shape[0], : x.shape[1]]
