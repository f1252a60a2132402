"""MiniCPM-V checkpoints of the hub. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class MiniCPMV4_6(HubCheckpoint):
    """MiniCPM-V-4.6 (Yao 2024, arXiv 2408.01800)."""

    family = "minicpm-v"
    architecture = "minicpmv4_6"
    stand_in = "arena.lvlm.families.minicpmv.random:minicpmv"
    billions = 1.3
    preprocessing: ClassVar[Mapping[str, Any]] = {
        "image_processor_type": "MiniCPMV4_6ImageProcessor",
        "max_slice_nums": 9,
        "scale_resolution": 448,
        "patch_size": 14,
        "use_image_id": True,
        "slice_mode": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("openbmb/MiniCPM-V-4.6")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.minicpmv.model import MiniCPMV

        return MiniCPMV
