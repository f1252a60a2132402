"""Gemma 3 checkpoints of the hub. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Gemma3_4B(HubCheckpoint):
    """Gemma 3 4B, instruction-tuned; gated (Gemma Team 2025, arXiv 2503.19786)."""

    family = "gemma3"
    architecture = "gemma3"
    stand_in = "arena.lvlm.families.gemma3.random:gemma3"
    billions = 4.3
    preprocessing: ClassVar[Mapping[str, Any]] = {
        "resample": 2,
        "size": {"height": 896, "width": 896},
        "do_pan_and_scan": None,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("google/gemma-3-4b-it")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.gemma3.model import Gemma3

        return Gemma3
