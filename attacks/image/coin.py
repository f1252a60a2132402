"""COIN: every pixel taken from a random place near by (Wang 2023, arXiv 2311.18403)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from PIL import Image
from pydantic import Field
from scipy.ndimage import map_coordinates

from arena.plugins.base import AttackerWorld, ImageAttack, PluginConfig
from attacks.image.values import on_values


class Coin(ImageAttack):
    """Each pixel becomes the colour of the picture at a random shift of its own, interpolated bilinearly.

        x'(r, c) = x(r + dr, c + dc),   dr, dc ~ U(-shift, shift) pixels, drawn for each pixel

    All colour channels of a pixel share its shift. Bilinear interpolation makes this a product of the picture with a
    random matrix, other for each picture, where convolution-based protections (`cuda`) multiply all pictures of a class
    by one. Beyond a border the picture goes on at the opposite one, as in the authors' code.

    Adapted: the authors draw in every epoch anew, after a random crop and a flip of their training; here a picture is
    changed once, by a generator of its own, and nothing else is done to it. Values are rounded, not cut off.
    """

    needs = frozenset({"seed"})
    packages = ("numpy", "scipy")

    class Config(PluginConfig):
        shift: float = Field(
            2.0, gt=0, le=64, description="largest shift of a pixel in either direction, in pixels; 2 is the paper's"
        )

    config: Config

    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        for image, rng in zip(images, world.rng().spawn(len(images)), strict=True):
            yield on_values(image, partial(shifted, reach=self.config.shift, rng=rng))


def shifted(x: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Values ``(H, W)`` or ``(H, W, C)``, each pixel from a place at most `reach` pixels away in either direction."""
    places = np.indices(x.shape[:2], np.float32) + rng.uniform(-reach, reach, (2, *x.shape[:2])).astype(np.float32)
    flat = x.reshape(*x.shape[:2], -1)
    planes = [map_coordinates(flat[..., c], places, order=1, mode="grid-wrap") for c in range(flat.shape[-1])]
    return np.stack(planes, -1).reshape(x.shape)
