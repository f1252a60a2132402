"""New colours for a picture of any mode, whose alpha channel stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from arena.data.colours import recoloured

if TYPE_CHECKING:
    from torch import Tensor


def on_colours(image: Image.Image, operation: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Apply an operation on RGB or L pictures to a picture of any mode: mode and alpha channel stay as they were."""
    if image.mode in ("RGB", "L"):
        return operation(image)
    changed = operation(image.convert("RGB"))
    if image.mode not in ("RGBA", "LA"):
        return changed.convert(image.mode)
    values = np.asarray(changed.convert("RGB" if image.mode == "RGBA" else "L"))
    return Image.fromarray(recoloured(image, values.reshape(*values.shape[:2], -1)))


def repaint(image: Image.Image, planes: Tensor) -> Image.Image:
    """A picture of the size, mode and alpha channel of `image` (L, LA, RGB or RGBA) with the colours `planes`.

    `planes` are float ``(3, H, W)``, which a grey picture takes the mean of, or ``(1, H, W)``; values are clipped to
    [0, 1] and rounded to 8 bits.
    """
    x = planes.detach().cpu()
    x = x.mean(0, keepdim=True) if image.mode in ("L", "LA") else x.expand(3, -1, -1)
    values = (x.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(recoloured(image, values))
