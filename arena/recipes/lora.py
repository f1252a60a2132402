"""LoRA on every attention and MLP projection, of the language model or of the whole one (Hu 2022, arXiv 2106.09685)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from arena.plugins.base import Recipe, setting
from arena.recipes.config import TrainingConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Lora(Recipe):
    """Low-rank adapters on the language model, where asked also on the vision tower; all other weights stay frozen."""

    class Config(TrainingConfig):
        rank: int = setting(16, dry_run=2, ge=1, description="rank of the adapters; the paper uses 8, 16 and 64")
        alpha: int = Field(32, gt=0, description="scale of the adapters is alpha / rank")
        dropout: float = Field(0.05, ge=0, lt=1, description="of the adapters while they are trained")
        modules: Literal["language", "all"] = setting(
            "language",
            later=True,
            description="where adapters are: on the language model, or on vision tower and projector too",
        )

    config: Config
    parts = frozenset({"adapters"})

    @property
    def packs(self) -> bool:
        return self.config.modules == "language"

    @property
    def rank(self) -> int:
        return self.config.rank

    def prepare(self, lvlm: LVLM) -> LVLM:
        return self.adapt(lvlm, self.adapted(lvlm))

    def adapted(self, lvlm: LVLM) -> list[str]:
        """Names of the linear layers that get adapters."""
        from arena.lvlm.adapters import linear_modules

        everywhere = (lvlm.vision_tower, lvlm.projector, lvlm.language_model)
        parts = (lvlm.language_model,) if self.config.modules == "language" else everywhere
        # A projector may lie within the tower.
        return list(dict.fromkeys(name for part in parts for name in linear_modules(lvlm, part)))

    def adapt(self, lvlm: LVLM, names: list[str], **options: Any) -> LVLM:
        """The model with fresh adapters on these layers; `options` as in `attach_lora`."""
        from arena.lvlm.adapters import attach_lora

        c = self.config
        return attach_lora(lvlm, c.rank, c.alpha, c.dropout, names, **options)
