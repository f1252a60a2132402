"""Non-local means (Buades, Coll and Morel 2005)."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from skimage.restoration import denoise_nl_means

from attacks.image.noise_level import OfNoiseLevel
from attacks.image.values import channels


class NonLocalMeans(OfNoiseLevel):
    """Each pixel becomes a mean of those around it, weighted by how much the patches about the two are alike.

    With d the mean squared difference of two patches, of which ``2 sigma^2`` is put down to noise, the weight is
    ``exp(-max(d - 2 sigma^2, 0) / (strength sigma)^2)``. Sigma is estimated for each picture from its finest wavelets,
    unless it is set. Where the estimate is 0, as it is where most of a picture is flat, the picture stays as it is.
    """

    packages = ("scikit-image", "pywavelets")

    class Config(OfNoiseLevel.Config):
        strength: float = Field(0.8, gt=0, le=10, description="how far patches may differ, in sigmas")
        patch: int = Field(5, ge=1, le=15, description="side of a patch in pixels")
        distance: int = Field(6, ge=1, le=21, description="how far off patches are looked for, in pixels")

    config: Config

    def denoised(self, x: np.ndarray, sigma: float) -> np.ndarray:
        denoised: np.ndarray = denoise_nl_means(
            x,
            patch_size=self.config.patch,
            patch_distance=self.config.distance,
            h=self.config.strength * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=channels(x),
        )
        return denoised.reshape(x.shape)  # it drops sides of one pixel
