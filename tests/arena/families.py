"""The table that drives the tests of families: one row a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    Glm4vImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Qwen2VLImageProcessorPil,
)

from arena.lvlm.base import LVLM
from arena.lvlm.glm4v import Glm4v
from arena.lvlm.internvl import InternVL
from arena.lvlm.llava import Llava
from arena.lvlm.qwen2_5_vl import Qwen2_5VL
from arena.lvlm.qwen3_vl import Qwen3VL

QWEN = {"temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}

INTERNVL = {
    "crop_to_patches": False,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 448, "width": 448},
}
GLM_PIXELS = {"shortest_edge": 12544, "longest_edge": 9633792}
GLM = {
    "size": GLM_PIXELS,
    "do_rescale": True,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Glm4vImageProcessor",
    "processor_class": "Glm4vProcessor",
}


@dataclass(frozen=True)
class Family:
    """`block` is the side in pixels of an image token where nothing is resized, `tokens` counts what the processor's
    own output makes, `extra` gives what transformers' model takes beside ids, mask and the processor's output, `hub`
    the preprocessing values of the registered checkpoints, `asked` what transformers' `Processor` of the family asks
    of its picture processor whatever those say."""

    lvlm: Any
    processor: Any
    block: int
    tokens: Callable[[dict[str, Tensor]], list[int]]
    hub: dict[str, dict[str, Any]]
    trained_by_projector: tuple[str, ...]
    extra: Callable[[LVLM, Tensor], dict[str, Tensor]] = field(default=lambda lvlm, ids: {})
    asked: dict[str, Any] = field(default_factory=dict)
    layers: int = 2
    projections: int = 7

    def processed(self, lvlm: LVLM, images: list[Image.Image]) -> Any:
        """What transformers makes of pictures."""
        return lvlm.processor(images, return_tensors="pt", **self.asked)


def grid_tokens(output: dict[str, Tensor]) -> list[int]:
    return (output["image_grid_thw"].prod(1) // 4).tolist()


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
    "internvl": Family(
        InternVL,
        GotOcr2ImageProcessorPil,
        block=8,
        tokens=lambda output: (36 * output["num_patches"]).tolist(),
        hub={
            "internvl3-8b and internvl3.5-8b": INTERNVL,
            "three tiles allowed": {**INTERNVL, "max_patches": 3},
            "one tile allowed": {**INTERNVL, "max_patches": 1},
        },
        trained_by_projector=("multi_modal_projector.",),
        asked={"crop_to_patches": True},
    ),
    "glm4v": Family(
        Glm4v,
        Glm4vImageProcessorPil,
        block=28,
        tokens=grid_tokens,
        hub={"glm-4.1v-9b": GLM, "few pixels in two frames": {**GLM, "size": {**GLM_PIXELS, "longest_edge": 90000}}},
        trained_by_projector=("visual.merger.",),
        extra=token_types,
        projections=6,
    ),
}
