"""Filters on arrays of colour values, for pictures of any mode and size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from attacks.image.colour import on_colours

Filter = Callable[[np.ndarray], np.ndarray]


def on_values(image: Image.Image, operation: Filter) -> Image.Image:
    """Apply a filter to the colours of a picture: size, mode and alpha channel stay as they were.

    The filter is given float32 in [0, 1], ``(H, W)`` of a grey picture and ``(H, W, 3)`` of any other, and gives back
    the same shape; its values are clipped to [0, 1] and rounded to 8 bits. One picture is in memory at a time.
    """

    def filtered(colours: Image.Image) -> Image.Image:
        values = operation(np.asarray(colours, np.float32) / np.float32(255))
        return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))

    return on_colours(image, filtered)


def channels(values: np.ndarray) -> int | None:
    """The axis of the colour channels as scikit-image names it: the last one, None where there is none."""
    return -1 if values.ndim == 3 else None


def mirrored(values: np.ndarray, least: int) -> np.ndarray:
    """Values ``(H, W)`` or ``(H, W, C)`` with sides of `least` pixels at least: smaller ones are mirrored beyond the
    right and lower border."""
    missing = [(0, max(0, least - side)) for side in values.shape[:2]]
    return np.pad(values, [*missing, *[(0, 0)] * (values.ndim - 2)], mode="symmetric")
