"""Idefics3 and SmolVLM checkpoints of the hub, and the tiny one that comes with the package.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, ShippedModel, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

_LANCZOS = {
    "resample": 1,
    "do_image_splitting": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


class Idefics3_8B(HubCheckpoint):
    """Idefics3-8B-Llama3 (Laurençon 2024, arXiv 2408.12637)."""

    family = "idefics3"
    architecture = "idefics3"
    stand_in = "arena.lvlm.families.idefics3.random:idefics3"
    billions = 8.46
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_LANCZOS,
        "size": {"longest_edge": 1456},
        "max_image_size": {"longest_edge": 364},
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("HuggingFaceM4/Idefics3-8B-Llama3")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.idefics3.model import Idefics3

        return Idefics3


class SmolVLM2B(Idefics3_8B):
    """SmolVLM-Instruct, 2.2 B parameters, of Idefics3's architecture (Marafioti 2025, arXiv 2504.05299)."""

    billions = 2.25
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_LANCZOS,
        "size": {"longest_edge": 1536},
        "max_image_size": {"longest_edge": 384},
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("HuggingFaceTB/SmolVLM-Instruct")


class SmolVLM256M(Idefics3_8B):
    """SmolVLM-256M-Instruct, the smallest of Idefics3's architecture (Marafioti 2025, arXiv 2504.05299)."""

    billions = 0.26
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_LANCZOS,
        "size": {"longest_edge": 2048},
        "max_image_size": {"longest_edge": 512},
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("HuggingFaceTB/SmolVLM-256M-Instruct")


class SmolVLM2_2B(Idefics3_8B):
    """SmolVLM2-2.2B-Instruct, which also takes films (Marafioti 2025, arXiv 2504.05299)."""

    architecture = "smolvlm"
    stand_in = "arena.lvlm.families.idefics3.random:smolvlm"
    billions = 2.25
    preprocessing: ClassVar[Mapping[str, Any]] = {
        **_LANCZOS,
        "size": {"longest_edge": 1536},
        "max_image_size": {"longest_edge": 384},
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("HuggingFaceTB/SmolVLM2-2.2B-Instruct")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.idefics3.model import SmolVLM

        return SmolVLM


class TinyIdefics3(ShippedModel):
    """Idefics3 at 1.1 M parameters, trained on procedural scenes and pictures; see its model card in
    `arena/lvlm/zoo/tiny_idefics3`."""

    family = "idefics3"
    folder = "tiny_idefics3"

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.idefics3.model import Idefics3

        return Idefics3
