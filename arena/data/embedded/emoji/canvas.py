"""Emojis painted on a soft ground, 64 x 64 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIZE = 64
_LARGE, _SMALL = (46, 60), (24, 31)
"""Sides in pixels, both ends in: of an emoji that is alone, and of one in its quarter."""


def alone(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One emoji, RGBA, at a random place and of a random size."""
    return _painted([(image, (0, 0), SIZE, _LARGE)], rng)


def several(images: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
    """One to four emojis, RGBA, each in a quarter of its own."""
    half = SIZE // 2
    corners = [(half * int(q % 2), half * int(q // 2)) for q in rng.permutation(4)[: len(images)]]
    return _painted([(image, at, half, _SMALL) for image, at in zip(images, corners, strict=True)], rng)


def _painted(
    things: Sequence[tuple[Image.Image, tuple[int, int], int, tuple[int, int]]], rng: np.random.Generator
) -> Image.Image:
    """Things as picture, corner and side of their window, and range of sizes; graded and faintly noisy behind, so that
    no picture is like another."""
    tone = rng.uniform(90, 190) + rng.uniform(-12, 12, 3)
    slope = rng.uniform(-18, 18, 2)
    axis = np.linspace(-1, 1, SIZE)
    ground = tone + slope[0] * axis[:, None, None] + slope[1] * axis[None, :, None] + rng.normal(0, 3, (SIZE, SIZE, 3))
    canvas = Image.fromarray(np.clip(np.rint(ground), 0, 255).astype(np.uint8))
    for image, (left, top), window, (low, high) in things:
        side = int(rng.integers(low, high + 1))
        x, y = (int(corner + rng.integers(window - side + 1)) for corner in (left, top))
        thing = image.resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(thing, (x, y), thing)
    return canvas
