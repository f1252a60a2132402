"""Pictures of a training step under a random policy, with random numbers of the attack's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from arena.errors import ArenaError
from arena.lvlm.pixels import by_size

T = TypeVar("T")

SMALLEST = 3
"""Pixels along a side that kornia's sharpness filter needs, which TrivialAugment may draw."""


@torch.no_grad()
def drawn(
    images: Sequence[Tensor], policy: Callable[[Tensor], T], generator: torch.Generator
) -> list[tuple[list[int], T]]:
    """What `policy` makes of the pictures of each size, ``(n, 3, H, W)`` in [0, 1], with their places in the list.

    The policy draws from torch's global CPU generator, as kornia does, which is left as it was: the draws follow
    `generator`.
    """
    found = []
    for places, stack in by_size(images):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
            found.append((places, policy(stack)))
    return found


def in_order(groups: Sequence[tuple[list[int], Tensor]]) -> list[Tensor]:
    """What was made for each picture, in the order of the pictures."""
    made = {place: x for places, stack in groups for place, x in zip(places, stack, strict=True)}
    return [made[place] for place in sorted(made)]


def refuse_smaller(images: Sequence[Tensor], attack: str) -> None:
    """Raises `ArenaError` for a picture that TrivialAugment cannot take."""
    for image in images:
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ArenaError(
                f"{attack}: a picture of {width} x {height} pixels cannot be augmented: "
                f"remove pictures below {SMALLEST} pixels a side from the training set"
            )
