"""Wavelet denoising with the thresholds of BayesShrink (Chang, Yu and Vetterli 2000)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from skimage.restoration import denoise_wavelet

from attacks.image.noise_level import OfNoiseLevel
from attacks.image.values import channels, mirrored

LEAST = 32
"""Pixels of a side that every wavelet can be laid over; smaller pictures are mirrored."""


class Wavelet(OfNoiseLevel):
    """Wavelet coefficients shrink towards zero, by a threshold for each level and direction, and small ones go.

    The threshold is ``sigma^2 / sigma_x``, where ``sigma_x^2`` is the coefficients' variance less that of the noise.
    Colours are denoised as luma and two chromas. Sigma is estimated for each picture from its finest coefficients,
    unless it is set. Where the estimate is 0, as it is where most of a picture is flat, the picture stays as it is.
    """

    packages = ("scikit-image", "pywavelets")

    class Config(OfNoiseLevel.Config):
        wavelet: Literal["db1", "db2", "db4", "sym4"] = Field("sym4", description="name of the wavelet in PyWavelets")
        mode: Literal["soft", "hard"] = Field("soft", description="whether large coefficients shrink too")

    config: Config

    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
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
