"""Total variation denoising (Rudin, Osher and Fatemi 1992), by the algorithm of Chambolle 2004."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pydantic import Field
from skimage.restoration import denoise_tv_chambolle

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import channels, on_values


class TotalVariation(ImageAttack):
    """The picture that is near and has little total variation: ``min_u sum |grad u| + |u - x|^2 / (2 weight)``.

    Channels are denoised one by one. Areas become flat and edges stay.
    """

    packages = ("scikit-image",)

    class Config(PluginConfig):
        weight: float = Field(0.1, gt=0, le=10, description="how much smoothness counts, of colours in [0, 1]")
        steps: int = Field(200, ge=1, le=1000, description="steps at most; it stops where the objective stands still")

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        return (on_values(image, self._denoised) for image in images)

    def _denoised(self, x: np.ndarray) -> np.ndarray:
        weight, steps = self.config.weight, self.config.steps
        denoised: np.ndarray = denoise_tv_chambolle(x, weight, max_num_iter=steps, channel_axis=channels(x))
        return denoised
