"""What methods see that learn from pixels as they are, without a vision-language model: rows of values, and a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import as_rgb
from defenses.classes import answer_classes

SIDE = 224
"""Longest side, in pixels, at which pictures are seen."""


def common_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """The height and width that most pictures have, shrunk until no side is over `SIDE`."""
    ((height, width), _), *_ = Counter((s.image.height, s.image.width) for s in samples).most_common(1)
    longest = max(SIDE, height, width)
    return max(1, height * SIDE // longest), max(1, width * SIDE // longest)


def flat(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Planes ``(1 or 3, H, W)`` as rows ``(n, 3 * pixels)`` of the values of three planes of one size `(height,
    width)`; others are resized to it, which is linear in their values."""
    rows = []
    for x in images:
        x = as_rgb(x)
        if tuple(x.shape[-2:]) != size:
            x = F.interpolate(x[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        rows.append(x.flatten())
    return torch.stack(rows)


def several_classes(samples: Sequence[Sample], seed: int, method: str) -> Tensor:
    """The class of each sample, int ``(n,)``, see `answer_classes`. Raises `ArenaError` where all have one."""
    classes = torch.from_numpy(answer_classes(samples, seed)).long()
    if len(classes.unique()) == 1:
        raise ArenaError(
            f"{method}: all samples have one answer, so there is nothing to tell apart; protect more kinds"
        )
    return classes
