"""How much noise a picture has, from its finest wavelets (Donoho and Johnstone 1994)."""

from __future__ import annotations

import numpy as np
import pywt

from attacks.image.values import mirrored

LEAST = 16
"""Sides that the wavelet is laid over, in pixels; smaller pictures are mirrored."""
ROUNDING = 1e-5
"""Levels that are a smaller share of the largest value are rounding in single precision."""
NORMAL = 0.6745
"""The median of the absolute value of a standard normal variable."""


def noise_level(values: np.ndarray) -> float:
    """Standard deviation of white noise in ``(H, W)`` or ``(H, W, C)``, in the units of the values: the median of the
    absolute diagonal coefficients of the finest level (db2) over 0.6745, a mean over channels.

    It is 0 where most of a picture is flat, whatever stands in the rest, and where it is no more than rounding.
    """
    _, (_, _, diagonal) = pywt.dwt2(mirrored(values, LEAST), "db2", axes=(0, 1))
    level = float((np.median(np.abs(diagonal), axis=(0, 1)) / NORMAL).mean())
    return level if level > ROUNDING * float(np.abs(values).max()) else 0.0
