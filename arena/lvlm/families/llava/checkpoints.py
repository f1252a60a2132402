"""LLaVA checkpoints of the hub, and the tiny ones that come with the package. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from arena.lvlm.checkpoints import HubCheckpoint, ShippedModel, checkpoint_setting

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Llava15_7B(HubCheckpoint):
    """LLaVA-1.5-7B (Liu 2023, arXiv 2310.03744)."""

    family = "llava"
    architecture = "llava"
    stand_in = "arena.lvlm.families.llava.random:llava"
    billions = 7.06
    preprocessing: ClassVar[Mapping[str, Any]] = {
        "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336},
    }

    class Config(HubCheckpoint.Config):
        checkpoint: str = checkpoint_setting("llava-hf/llava-1.5-7b-hf")

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.llava.model import Llava

        return Llava


class TinyLlava(ShippedModel):
    """LLaVA at 1.1 M parameters, trained on procedural scenes and pictures; see its model card in
    `arena/lvlm/zoo/tiny_llava`."""

    family = "llava"
    folder = "tiny_llava"

    def lvlm_class(self) -> type[LVLM]:
        from arena.lvlm.families.llava.model import Llava

        return Llava


class TinyLlava48(TinyLlava):
    """A second tiny LLaVA, of other sizes, tokenizer and picture size: what is crafted on one can be tried on the
    other; see its model card in `arena/lvlm/zoo/tiny_llava_48`."""

    folder = "tiny_llava_48"
