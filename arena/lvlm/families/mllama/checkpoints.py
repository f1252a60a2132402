"""Llama-3.2-Vision checkpoints of the hub. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Llama3_2Vision11B(HubCheckpoint):
    """Llama-3.2-11B-Vision-Instruct (Grattafiori 2024, arXiv 2407.21783)."""

    family = "llama-3.2-vision"
    architecture = "mllama"
    stand_in = "arena.lvlm.families.mllama.random:mllama"
    billions = 10.67
    preprocessing: ClassVar[Mapping[str, Any]] = {
        "image_processor_type": "MllamaImageProcessor",
        "size": {"height": 560, "width": 560},
        "max_image_tiles": 4,
        "resample": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("meta-llama/Llama-3.2-11B-Vision-Instruct")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.mllama.model import Mllama

        return Mllama
