"""GLM-V checkpoints of the hub. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Glm4_1V9B(HubCheckpoint):
    """GLM-4.1V-9B-Base (GLM-V Team 2025, arXiv 2507.01006)."""

    family = "glm-v"
    architecture = "glm4v"
    stand_in = "arena.lvlm.families.glm4v.random:glm4v"
    billions = 10.29
    preprocessing: ClassVar[Mapping[str, Any]] = {
        "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        "do_rescale": True,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Glm4vImageProcessor",
        "processor_class": "Glm4vProcessor",
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("zai-org/GLM-4.1V-9B-Base")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.glm4v.model import Glm4v

        return Glm4v
