"""A picture's colours: taken out of it, and put back into its mode beside an alpha channel that stays as it was."""

from __future__ import annotations

import numpy as np
from PIL import Image


def colours(image: Image.Image) -> np.ndarray:
    """The colour values of a picture of mode L, LA, RGB or RGBA without alpha, uint8 ``(H, W, C)`` with C = 1 or 3."""
    values = np.asarray(image)
    values = values[:, :, None] if values.ndim == 2 else values
    return values[:, :, :-1] if image.mode.endswith("A") else values


def recoloured(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """The pixels of `image` with other colours, in the shape that its mode has: ``(H, W)`` for L, else ``(H, W, C)``.

    `values` are as `colours` gives them, uint8, or float in [0, 1]; so is what comes back, alpha included.
    """
    if image.mode.endswith("A"):
        alpha = np.asarray(image.getchannel("A"))[:, :, None]
        scaled = alpha if values.dtype == np.uint8 else alpha.astype(np.float32) / 255
        return np.concatenate([values, scaled], -1)
    return values[:, :, 0] if image.mode == "L" else values


def amplified(original: Image.Image, released: Image.Image) -> Image.Image:
    """The change of the colours times ten, around mid-grey, clipped to 8 bits."""
    change = colours(released).astype(np.int16) - colours(original)
    array = np.clip(128 + 10 * change, 0, 255).astype(np.uint8)
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def scaling(image: Image.Image) -> str:
    """What to do with a picture of mode I;16, I or F, as code: all its values brought to 8 bits. `Image.convert` would
    clip them at 255."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    start, span = (f" - {low:.9g}" if low else ""), (f" * {255 / (high - low):.9g}" if high > low else "")
    return (
        f"its values run from {low:g} to {high:g}; to keep them all, scale them: "
        f"Image.fromarray(((np.asarray(image){start}){span}).round().astype('uint8'))"
    )
