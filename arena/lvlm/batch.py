"""What goes into a vision-language model and what comes out of it: encoded samples with roles, and a forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from arena.lvlm.features import Remembered

IGNORE = -100
"""Label of a position that has no loss, as in transformers."""


class Role(IntEnum):
    """What a position of the language model's sequence holds; template tokens belong to none of the paper's sets."""

    TEMPLATE = 0
    IMAGE = 1
    TEXT = 2
    TRIGGER = 3
    ANSWER = 4
    PADDING = 5


@dataclass(frozen=True)
class Encoding:
    """One sample's token ids and the `Role` of each, lists of equal length."""

    ids: list[int]
    roles: list[int]


@dataclass(frozen=True)
class Batch:
    """Encoded samples, right-padded to a common length.

    `input_ids`, `attention_mask` (1 at tokens, 0 at padding), `labels` (the ids of answer tokens, `IGNORE` elsewhere)
    and `roles` are long ``(B, L)``. `pixels` are the model's own pixel arguments, made by `LVLM.pixel_inputs`;
    `images` are the raw pictures they were made from, float ``(3, H, W)`` in [0, 1], each of its own size. `indices`,
    long ``(B,)``, are the samples' places in the list that they were taken from. Other pictures are put in by
    ``lvlm.with_images(batch, images)``. `features` are the arena's: what is remembered of these very `pixels`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    roles: Tensor
    pixels: dict[str, Tensor]
    images: tuple[Tensor, ...]
    indices: Tensor
    features: Remembered | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def positions(self, role: Role) -> Tensor:
        """Bool ``(B, L)``: where `role` stands."""
        return self.roles == role

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with all its tensors on `device`."""
        move = {k: getattr(self, k).to(device) for k in ("input_ids", "attention_mask", "labels", "roles", "indices")}
        pixels = {k: v.to(device) for k, v in self.pixels.items()}
        return replace(self, **move, pixels=pixels, images=tuple(x.to(device) for x in self.images))


@dataclass
class Forward:
    """What a forward pass gives.

    `losses` ``(B,)`` are the mean cross entropies, in nats, over each sample's answer tokens. `logits` ``(B, T, V)``
    are those that predict the last T tokens of the sequence, whose `labels` are ``(B, T)``. `attention` has, by layer
    that was asked for, weights ``(B, heads, R, L)``; `embeddings` ``(B, L, d)`` are the input embeddings, None unless
    asked for. All but `labels` carry gradient.
    """

    losses: Tensor
    logits: Tensor
    labels: Tensor
    attention: dict[int, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
