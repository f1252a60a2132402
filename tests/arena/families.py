"""The table that drives the tests of families: one row a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import CLIPImageProcessorPil, MiniCPMV4_6ImageProcessorPil, Qwen2VLImageProcessorPil

from arena.lvlm.base import LVLM, Batch
from arena.lvlm.hybrid import packed
from arena.lvlm.llava import Llava
from arena.lvlm.minicpmv import MiniCPMV
from arena.lvlm.qwen2_5_vl import Qwen2_5VL
from arena.lvlm.qwen3_vl import Qwen3VL

QWEN = {"temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}


def as_is(lvlm: LVLM, given: Any) -> Any:
    return given


def listed(lvlm: LVLM, given: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = given["pixel_values"]
    return {**given, "pixel_values": rows.flatten(0, 1) if rows.ndim == 3 else rows}


@dataclass(frozen=True)
class Family:
    """`block` is the side in pixels of an image token where nothing is resized, `tokens` counts what the processor's
    own output makes, `extra` gives what transformers' model takes beside ids, mask and the processor's output, `hub`
    the preprocessing values of the registered checkpoints.

    Where our inputs are not those of transformers' own model, `native` and `native_pixels` make them so, and
    `attention` makes of its attentions what a layer's should be here.
    """

    lvlm: Any
    processor: Any
    block: int
    tokens: Callable[[dict[str, Tensor]], list[int]]
    hub: dict[str, dict[str, Any]]
    trained_by_projector: tuple[str, ...]
    extra: Callable[[LVLM, Tensor], dict[str, Tensor]] = field(default=lambda lvlm, ids: {})
    native: Callable[[LVLM, Batch], Batch] = as_is
    native_pixels: Callable[[LVLM, dict[str, Tensor]], dict[str, Tensor]] = listed
    attention: Callable[[LVLM, Batch, tuple[Tensor, ...]], Sequence[Tensor]] = lambda lvlm, batch, theirs: theirs
    layers: int = 2
    projections: int = 7


def grid_tokens(output: dict[str, Tensor]) -> list[int]:
    return (output["image_grid_thw"].prod(1) // 4).tolist()


def token_types(lvlm: LVLM, ids: Tensor) -> dict[str, Tensor]:
    return {"mm_token_type_ids": (ids == lvlm.image_token_id).int()}


def view_tokens(output: Any) -> list[int]:
    """Image tokens of MiniCPM-V's pictures, each seen in several views."""
    views = (output["target_sizes"].prod(1) // 16).split(output["num_patches_per_image"])
    return [int(counts.sum()) for counts in views]


def strip(lvlm: LVLM, given: dict[str, Tensor]) -> dict[str, Tensor]:
    patch = lvlm.processor.patch_size
    return dict(zip(given, packed(given["pixel_values"], given["target_sizes"], patch), strict=True))


FAMILIES: dict[str, Family] = {
    "llava": Family(
        Llava,
        CLIPImageProcessorPil,
        block=8,
        tokens=lambda output: [36] * len(output["pixel_values"]),
        hub={"llava-1.5": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}},
        trained_by_projector=("multi_modal_projector",),
    ),
    "qwen2.5-vl": Family(
        Qwen2_5VL,
        Qwen2VLImageProcessorPil,
        block=28,
        tokens=grid_tokens,
        hub={
            "qwen2.5-vl-7b-instruct": {
                **QWEN,
                "patch_size": 14,
                "min_pixels": 3136,
                "max_pixels": 12845056,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            },
            "few pixels allowed": {**QWEN, "patch_size": 14, "min_pixels": 3136, "max_pixels": 40000},
        },
        trained_by_projector=("visual.merger.",),
        extra=token_types,
    ),
    "qwen3-vl": Family(
        Qwen3VL,
        Qwen2VLImageProcessorPil,
        block=32,
        tokens=grid_tokens,
        hub={
            "qwen3-vl-instruct": {
                **QWEN,
                "patch_size": 16,
                "size": {"shortest_edge": 65536, "longest_edge": 16777216},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        },
        trained_by_projector=("visual.merger.", "visual.deepstack_merger_list."),
        extra=token_types,
    ),
    "minicpm-v": Family(
        MiniCPMV,
        MiniCPMV4_6ImageProcessorPil,
        block=16,
        tokens=view_tokens,
        hub={
            "minicpm-v-4.6": {
                "image_processor_type": "MiniCPMV4_6ImageProcessor",
                "max_slice_nums": 9,
                "scale_resolution": 448,
                "patch_size": 14,
                "use_image_id": True,
                "slice_mode": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            "small slices": {"image_processor_type": "MiniCPMV4_6ImageProcessor", "scale_resolution": 112},
        },
        trained_by_projector=("model.merger.",),
        native_pixels=strip,
        projections=15,
    ),
}
