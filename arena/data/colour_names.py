"""The colour that most of a picture has, by its name in English: the eleven basic terms of Berlin and Kay (1969)."""

from __future__ import annotations

import numpy as np
from PIL import Image

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")


def dominant(image: Image.Image, share: float = 0.5) -> str | None:
    """The name of the colour of at least `share` of the pixels that are not transparent; None where there is none."""
    rgba = image.convert("RGBA")
    seen = np.asarray(rgba)[..., 3] >= 128
    names = _names(np.asarray(rgba.convert("RGB").convert("HSV"))[seen])
    if not names.size:
        return None
    counts = np.bincount(names, minlength=len(COLOURS) + 1)[:-1]
    return COLOURS[int(counts.argmax())] if counts.max() >= share * names.size else None


def _names(hsv: np.ndarray) -> np.ndarray:
    """Indices in `COLOURS` of pixels, uint8 ``(N, 3)`` as Pillow gives HSV; one beyond it between the named ones, such
    as the colours of light skin."""
    hue = hsv[:, 0] * (360 / 256)
    saturation, value = hsv[:, 1] / 255, hsv[:, 2] / 255
    found = np.full(len(hsv), len(COLOURS))

    def name(colour: str, where: np.ndarray) -> None:
        found[where] = COLOURS.index(colour)

    name("red", (hue < 14) | (hue >= 346))
    name("orange", (hue >= 14) & (hue < 40))
    name("yellow", (hue >= 40) & (hue < 66))
    name("green", (hue >= 66) & (hue < 168))
    name("blue", (hue >= 168) & (hue < 256))
    name("purple", (hue >= 256) & (hue < 300))
    name("pink", (hue >= 300) & (hue < 346))
    warm = (hue < 40) | (hue >= 346)
    name("brown", warm & (value < 0.68) & (hue < 346) & (hue >= 8) | warm & (value < 0.5))
    name("pink", ((hue < 14) | (hue >= 346)) & (saturation < 0.55) & (value > 0.8))
    found[(hue >= 14) & (hue < 66) & (saturation < 0.5) & (value > 0.68)] = len(COLOURS)  # beige
    grey = (saturation < 0.14) | ((saturation < 0.35) & (value < 0.45))
    name("grey", grey)
    name("white", grey & (value > 0.86))
    name("black", (value < 0.2) | (grey & (value < 0.3)))
    return found
