"""New colour planes for a picture of any mode."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor


def repaint(image: Image.Image, planes: Tensor) -> Image.Image:
    """A picture of the size, mode and alpha channel of `image` (L, LA, RGB or RGBA) with the colours `planes`.

    `planes` are float ``(3, H, W)``, which a grey picture takes the mean of, or ``(1, H, W)``; values are clipped to
    [0, 1] and rounded to 8 bits.
    """
    grey = image.mode in ("L", "LA")
    x = planes.detach().cpu().mean(0) if grey else planes.detach().cpu().expand(3, -1, -1).permute(1, 2, 0)
    painted = Image.fromarray((x.clamp(0, 1) * 255).round().byte().numpy().astype(np.uint8))
    if image.mode in ("LA", "RGBA"):
        painted.putalpha(image.getchannel("A"))
    return painted
