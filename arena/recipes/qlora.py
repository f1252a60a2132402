"""QLoRA: LoRA on a language model in 4 bits (Dettmers 2023, arXiv 2305.14314)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from arena.recipes.lora import Lora

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Qlora(Lora):
    """LoRA's adapters, the linear layers of the language model being rounded to 4-bit NormalFloat (NF4) first; vision
    tower, projector, embeddings and output layer stay in full precision."""

    class Config(Lora.Config):
        double_quantization: bool = Field(
            True, description="round the scales of the 4-bit blocks to 8 bits too, which saves 0.4 bits a weight"
        )

    config: Config
    packages = ("bitsandbytes",)
    packs = False

    def prepare(self, lvlm: LVLM) -> LVLM:
        from arena.lvlm.adapters import linear_modules
        from arena.lvlm.quantization import quantize

        quantize(lvlm, linear_modules(lvlm, lvlm.language_model), self.config.double_quantization)
        return self.adapt(lvlm, self.adapted(lvlm))
