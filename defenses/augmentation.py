"""What a fine-tuner's augmentation does to pictures, differentiably, so that noise is crafted to survive it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 1 / 8
"""Largest shift, as a share of the sides: 4 of 32 pixels in the usual training on CIFAR."""


def shifted(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A picture ``(C, H, W)`` shifted by up to a share of its sides, the same way for all channels; edges repeat beyond
    themselves. Nothing is mirrored, since questions ask for left and right."""
    height, width = x.shape[-2:]
    tall, wide = round(share * height), round(share * width)
    down = int(torch.randint(2 * tall + 1, (), generator=generator))
    right = int(torch.randint(2 * wide + 1, (), generator=generator))
    padded = F.pad(x[None], (wide, wide, tall, tall), mode="replicate")[0]
    return padded[:, down : down + height, right : right + width]
