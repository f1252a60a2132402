"""The table that drives the tests of families: one row a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Idefics3ImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SmolVLMImageProcessorPil,
)

from arena.lvlm.base import LVLM
from arena.lvlm.gemma3 import Gemma3
from arena.lvlm.idefics3 import Idefics3, SmolVLM
from arena.lvlm.llava import Llava
from arena.lvlm.qwen2_5_vl import Qwen2_5VL
from arena.lvlm.qwen3_vl import Qwen3VL

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
LANCZOS = {"resample": 1, "do_image_splitting": True, **HALF}
QWEN = {"temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}


@dataclass(frozen=True)
class Family:
    """`block` is the side in pixels of an image token where nothing is resized, `tokens` counts what the processor's
    own output makes, `extra` gives what transformers' model takes beside ids, mask and the processor's output, `hub`
    the preprocessing values of the registered checkpoints, `large` those of them that make so big pictures that fewer
    are tested. `pictures` hands the processor one picture a sample, `place` is the token of the second row and fourth
    column of 6 x 6 blocks, `overview` counts the tokens that show all of them once more."""

    lvlm: Any
    processor: Any
    block: int
    tokens: Callable[[dict[str, Tensor]], list[int]]
    hub: dict[str, dict[str, Any]]
    trained_by_projector: tuple[str, ...]
    extra: Callable[[LVLM, Tensor], dict[str, Tensor]] = field(default=lambda lvlm, ids: {})
    layers: int = 2
    projections: int = 7
    pictures: Callable[[list[Any]], Any] = list
    place: int = 6 + 3
    overview: int = 0
    large: tuple[str, ...] = ()


def grid_tokens(output: dict[str, Tensor]) -> list[int]:
    return (output["image_grid_thw"].prod(1) // 4).tolist()


def tile_tokens(output: dict[str, Tensor]) -> list[int]:
    """Of tiles of 2 x 2 tokens."""
    return (4 * output["pixel_attention_mask"].any(-1).any(-1).sum(1)).tolist()


def token_types(lvlm: LVLM, ids: Tensor) -> dict[str, Tensor]:
    return {"mm_token_type_ids": (ids == lvlm.image_token_id).int()}


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
    "idefics3": Family(
        Idefics3,
        Idefics3ImageProcessorPil,
        block=16,
        tokens=tile_tokens,
        hub={
            "idefics3-8b-llama3": {**LANCZOS, "size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364}},
            "smolvlm-instruct": {**LANCZOS, "size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}},
            "smolvlm-256m-instruct": {
                **LANCZOS,
                "size": {"longest_edge": 2048},
                "max_image_size": {"longest_edge": 512},
            },
        },
        trained_by_projector=("connector.",),
        pictures=lambda images: [[image] for image in images],
        place=4 + 3,
        overview=4,
        large=("smolvlm-instruct", "smolvlm-256m-instruct"),
    ),
    "smolvlm": Family(
        SmolVLM,
        SmolVLMImageProcessorPil,
        block=16,
        tokens=tile_tokens,
        hub={
            "smolvlm2-2.2b-instruct": {
                **LANCZOS,
                "size": {"longest_edge": 1536},
                "max_image_size": {"longest_edge": 384},
            },
            "uncut": {
                **LANCZOS,
                "do_resize": False,
                "do_image_splitting": False,
                "max_image_size": {"longest_edge": 384},
            },
        },
        trained_by_projector=("connector.",),
        pictures=lambda images: [[image] for image in images],
        place=4 + 3,
        overview=4,
        large=("smolvlm2-2.2b-instruct",),
    ),
    "gemma3": Family(
        Gemma3,
        Gemma3ImageProcessorPil,
        block=16,
        tokens=lambda output: [36] * len(output["pixel_values"]),
        hub={"gemma-3-it": {"resample": 2, "size": {"height": 896, "width": 896}, "do_pan_and_scan": None, **HALF}},
        trained_by_projector=("multi_modal_projector",),
        extra=lambda lvlm, ids: {"token_type_ids": (ids == lvlm.image_token_id).int()},
    ),
}
