"""Non-local means (Buades, Coll and Morel 2005)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field
from skimage.restoration import denoise_nl_means

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.noise_level import noise_level
from attacks.image.values import channels, on_values


class NonLocalMeans(ImageAttack):
    """Each pixel becomes a mean of those around it, weighted by how much the patches about the two are alike.

    With d the mean squared difference of two patches, of which ``2 sigma^2`` is put down to noise, the weight is
    ``exp(-max(d - 2 sigma^2, 0) / (strength sigma)^2)``. Sigma is estimated for each picture from its finest wavelets,
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
        strength: float = Field(0.8, gt=0, le=10, description="how far patches may differ, in sigmas")
        patch: int = Field(5, ge=1, le=15, description="side of a patch in pixels")
        distance: int = Field(6, ge=1, le=21, description="how far off patches are looked for, in pixels")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._denoised) for image in images)

    def _denoised(self, x: np.ndarray) -> np.ndarray:
        sigma = noise_level(x) if self.config.sigma is None else self.config.sigma
        if sigma == 0:
            return x
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
