"""Qwen-VL checkpoints of the hub, and the tiny one that comes with the package. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, ShippedModel, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

_QWEN = {"temporal_patch_size": 2, "merge_size": 2, "image_processor_type": "Qwen2VLImageProcessor"}


class QwenCheckpoint(HubCheckpoint):
    """A checkpoint of any Qwen-VL generation: like the paper, the arena counts them as one family, so that one of them
    against another is a gray-box cell."""

    family = "qwen-vl"


class Qwen2_5VL7B(QwenCheckpoint):
    """Qwen2.5-VL-7B-Instruct (Bai 2025, arXiv 2502.13923)."""

    architecture = "qwen2_5_vl"
    stand_in = "arena.lvlm.families.qwen_vl.random:qwen2_5_vl"
    billions = 8.29
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_QWEN,
        "patch_size": 14,
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("Qwen/Qwen2.5-VL-7B-Instruct")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.qwen_vl.qwen2_5 import Qwen2_5VL

        return Qwen2_5VL


class Qwen3VL2B(QwenCheckpoint):
    """Qwen3-VL-2B-Instruct (Bai 2025, arXiv 2511.21631)."""

    architecture = "qwen3_vl"
    stand_in = "arena.lvlm.families.qwen_vl.random:qwen3_vl"
    billions = 2.13
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_QWEN,
        "patch_size": 16,
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("Qwen/Qwen3-VL-2B-Instruct")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL

        return Qwen3VL


class Qwen3VL4B(Qwen3VL2B):
    """Qwen3-VL-4B-Instruct, the surrogate and white-box target of MMGuard (Bai 2025, arXiv 2511.21631)."""

    billions = 4.44

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("Qwen/Qwen3-VL-4B-Instruct")


class Qwen3VL8B(Qwen3VL2B):
    """Qwen3-VL-8B-Instruct (Bai 2025, arXiv 2511.21631)."""

    billions = 8.77

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("Qwen/Qwen3-VL-8B-Instruct")


class TinyQwen3VL(ShippedModel):
    """Qwen3-VL at 1.5 M parameters, trained on procedural scenes and pictures; see its model card in
    `arena/lvlm/zoo/tiny_qwen3_vl`."""

    family = "qwen-vl"
    folder = "tiny_qwen3_vl"

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL

        return Qwen3VL
