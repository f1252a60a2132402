"""Shipped tiny models of other families than LLaVA. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena.lvlm.sources import ZOO, _Shipped

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class TinyQwen3VL(_Shipped):
    """Qwen3-VL at 1.4 M parameters, trained on procedural scenes; see its model card in
    `arena/lvlm/zoo/tiny_qwen3_vl`."""

    family = "qwen-vl"
    folder = "tiny_qwen3_vl"

    def load(self) -> LVLM:
        from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL

        return Qwen3VL.from_pretrained(ZOO / self.folder)


class TinyIdefics3(_Shipped):
    """Idefics3 at 1.1 M parameters, trained on procedural scenes; see its model card in
    `arena/lvlm/zoo/tiny_idefics3`."""

    family = "idefics3"
    folder = "tiny_idefics3"

    def load(self) -> LVLM:
        from arena.lvlm.families.idefics3.model import Idefics3

        return Idefics3.from_pretrained(ZOO / self.folder)
