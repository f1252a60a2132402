"""InternVL checkpoints of the hub. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class InternVL3_8B(HubCheckpoint):
    """InternVL3-8B in the format of transformers (Zhu 2025, arXiv 2504.10479)."""

    family = "internvl"
    architecture = "internvl"
    stand_in = "arena.lvlm.families.internvl.random:internvl"
    billions = 7.94
    preprocessing: ClassVar[Mapping[str, Any]] = {
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

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("OpenGVLab/InternVL3-8B-hf")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.internvl.model import InternVL

        return InternVL


class InternVL3_5_8B(InternVL3_8B):
    """InternVL3.5-8B in the format of transformers (Wang 2025, arXiv 2508.18265)."""

    stand_in = "arena.lvlm.families.internvl.random:internvl3_5"
    billions = 8.53

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("OpenGVLab/InternVL3_5-8B-HF")
