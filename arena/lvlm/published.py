"""A surrogate that sees pictures as they will be published: through a lossy compression, with a straight-through
gradient, as rounding to 8 bits has it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arena.data.pictures.encoding import Encoding
from arena.lvlm.base import LVLM


def seeing_published(lvlm: LVLM, encoding: Encoding) -> LVLM:
    """The same model, whose `pixel_inputs` begin with the picture written in `encoding` and read back."""
    if not encoding.lossy:
        return lvlm
    bound, inner = copy.copy(lvlm), lvlm.pixel_inputs

    def pixel_inputs(images: Sequence[Tensor]) -> dict[str, Tensor]:
        return inner([published(x, encoding) for x in images])

    bound.pixel_inputs = pixel_inputs  # type: ignore[method-assign]
    return bound


def published(x: Tensor, encoding: Encoding) -> Tensor:
    """A picture ``(3, H, W)`` in [0, 1] as it is read back of a file; the gradient is the identity."""
    with torch.no_grad():
        levels = (x.detach().cpu() * 255).add_(0.5).floor_().clamp_(0, 255).byte()
        read = encoding.published(Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy())))
        change = torch.from_numpy(np.array(read)).permute(2, 0, 1).to(x).div_(255).sub_(x)
    return x + change
