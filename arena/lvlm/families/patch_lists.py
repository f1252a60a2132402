"""Models that read the pictures of a batch as one list of patches and give image tokens a rotary position on several
axes (M-RoPE, Wang 2024, arXiv 2409.12191): what the arena needs between its own batches and such a model.

A list of patches does not say where a picture ends, and neither does the difference of two. So `pixel_values` has one
row a picture here, float ``(B, most patches, values)``, padded with NaN, which is still NaN in a difference, and
becomes a list at the door of the vision tower.

Image tokens share positions, so the text after a picture stands at lower positions than there are tokens before it.
Rotary attention sees differences of positions only. So all positions of a sequence are moved by as much as makes those
after its picture equal to the token's place: whoever continues a sequence needs to know nothing about pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def pad(pictures: Sequence[Tensor]) -> Tensor:
    """Patches of each picture ``(patches, ...)`` as ``(B, most patches, ...)``, NaN where there is none; tiles of
    pictures likewise."""
    return nn.utils.rnn.pad_sequence(list(pictures), batch_first=True, padding_value=float("nan"))


def unpad(rows: Tensor) -> list[Tensor]:
    """The patches of each picture, from what `pad` gave or a difference of two such."""
    return [row[~row.flatten(1).isnan().all(1)] for row in rows]


def adapt(model: nn.Module, vision_tower: nn.Module) -> None:
    """Make `model` take padded pixel values, and place tokens by itself in a forward pass with pictures.

    `model` is transformers' model below its language-modelling head, with ``get_rope_index``; each sequence holds one
    picture. Adapting it twice changes nothing.
    """
    vision_tower.register_forward_pre_hook(_list_patches, with_kwargs=True)
    model.register_forward_pre_hook(_place_tokens, with_kwargs=True)


def _list_patches(tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    rows, *others = args
    if rows.ndim == 3:
        sizes = kwargs["grid_thw"].prod(-1).tolist()
        rows = torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])
    return (rows, *others), kwargs


def _place_tokens(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    if kwargs.get("pixel_values") is None or kwargs.get("position_ids") is not None:
        return args, kwargs
    ids = kwargs["input_ids"]
    positions, behind = model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        image_grid_thw=kwargs["image_grid_thw"],
        attention_mask=kwargs.get("attention_mask"),
    )
    return args, {**kwargs, "position_ids": positions - behind}
