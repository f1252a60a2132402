"""Operations on the colour planes of a picture of any mode."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image


def on_colours(image: Image.Image, operation: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Apply an operation on RGB or L pictures to a picture of any mode: mode and alpha channel stay as they were."""
    if image.mode in ("RGB", "L"):
        return operation(image)
    changed = operation(image.convert("RGB"))
    if image.mode in ("RGBA", "LA"):
        changed = changed.convert("RGB" if image.mode == "RGBA" else "L")
        changed.putalpha(image.getchannel("A"))
        return changed
    return changed.convert(image.mode)
