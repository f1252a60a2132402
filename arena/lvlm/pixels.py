"""Differentiable pixel pipelines: from raw pictures to a vision tower's input, with the processor's own forward value.

Three pieces (MMGuard, section 5.1): discretisation has the real forward value and a straight-through gradient; geometry
is a differentiable equivalent; layout (target sizes, crops, tiles) follows the real integer rules and carries no
gradient. Pictures are float tensors ``(..., H, W)`` in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def to_tensor(image: Image.Image) -> Tensor:
    """A picture as float32 ``(3, H, W)`` in [0, 1], converted to RGB as processors do."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def to_bytes(x: Tensor) -> Tensor:
    """Straight-through rounding of [0, 1] values to 8 bits, halves up as Pillow does; the gradient is the identity."""
    with torch.no_grad():
        change = (x * 255).add_(0.5).floor_().clamp_(0, 255).div_(255).sub_(x)
    return x + change


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(0, 1 - np.abs(x)))


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


_FILTERS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    Image.Resampling.BOX: (_box, 0.5),
    Image.Resampling.BILINEAR: (_triangle, 1.0),
    Image.Resampling.BICUBIC: (_cubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}


@lru_cache(maxsize=256)
def resample_matrix(size: int, target: int, resample: int) -> Tensor:
    """The linear map of Pillow's resampling along one axis, float32 ``(target, size)``; rows sum to 1.

    Pillow's windowed filter: support grows with the scale when shrinking, so that it also antialiases. torch's own
    ``interpolate`` has no Lanczos, hence matrices for all filters alike.
    """
    kernel, support = _FILTERS[resample]
    scale = size / target
    stretch = max(scale, 1.0)
    matrix = np.zeros((target, size))
    for i in range(target):
        centre = (i + 0.5) * scale
        low = max(0, int(centre - support * stretch + 0.5))
        high = min(size, int(centre + support * stretch + 0.5))
        weights = kernel((np.arange(low, high) - centre + 0.5) / stretch)
        matrix[i, low:high] = weights / weights.sum()
    return torch.from_numpy(matrix).float()


def resize(x: Tensor, height: int, width: int, resample: int) -> Tensor:
    """Pillow's resize of 8-bit pictures ``(..., H, W)`` in [0, 1]: two passes, each rounded to 8 bits."""
    h, w = x.shape[-2:]
    passes = (
        [_columns, _rows]
        if h == height or w == width or not _rows_first(h, w, height, width, resample)
        else [_rows, _columns]
    )
    for one_pass in passes:
        x = one_pass(x, height, width, resample)
    return x


def _columns(x: Tensor, height: int, width: int, resample: int) -> Tensor:
    return x if x.shape[-1] == width else to_bytes(x @ resample_matrix(x.shape[-1], width, resample).to(x).T)


def _rows(x: Tensor, height: int, width: int, resample: int) -> Tensor:
    return x if x.shape[-2] == height else to_bytes(resample_matrix(x.shape[-2], height, resample).to(x) @ x)


@lru_cache(maxsize=4096)
def _rows_first(h: int, w: int, height: int, width: int, resample: int) -> bool:
    """Whether Pillow resizes rows before columns between these sizes.

    Its rule differs between versions, so it is asked: on a picture of noise the two orders round differently.
    """
    noise = np.random.default_rng(0).integers(0, 256, (h, w), dtype=np.uint8)
    real = torch.from_numpy(np.array(Image.fromarray(noise).resize((width, height), resample))).float() / 255
    x = torch.from_numpy(noise).float() / 255
    errors = []
    for first, second in ((_columns, _rows), (_rows, _columns)):
        errors.append((second(first(x, height, width, resample), height, width, resample) - real).abs().sum())
    return bool(errors[1] < errors[0])


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The centre crop of transformers, ``(..., height, width)``: a smaller picture is padded with zeros, of which the
    odd one is at the top or left."""
    pad_h, pad_w = max(0, height - x.shape[-2]), max(0, width - x.shape[-1])
    if pad_h or pad_w:
        x = F.pad(x, (math.ceil(pad_w / 2), pad_w // 2, math.ceil(pad_h / 2), pad_h // 2))
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def shortest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The size whose shorter side is `edge`; the longer one is truncated, as transformers does."""
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Per-channel ``(x - mean) / std`` of ``(..., 3, H, W)``."""
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def by_size(images: Sequence[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Pictures ``(3, H, W)`` stacked by size, so that each size is one operation.

    A group is the places of its pictures in the list, and the pictures ``(n, 3, H, W)``.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(i)
    return [(places, torch.stack([images[i] for i in places])) for places in groups.values()]
