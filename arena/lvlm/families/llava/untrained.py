"""The tiny LLaVA with a vision tower that has learned nothing. Importing this loads no torch."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from arena.errors import ArenaError
from arena.lvlm.families.llava.checkpoints import TinyLlava
from arena.plugins.base import PluginConfig

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class TinyLlavaUntrainedTower(TinyLlava):
    """The model `tiny-llava` with a vision tower at random weights, as it was before its training; projector and
    language model are those of `tiny-llava`. The recipe `full` trains the tower from scratch; those that freeze it
    leave it as it is. What is published of protections is mostly about models trained from scratch."""

    class Config(PluginConfig):
        tower_seed: int = Field(0, ge=0, lt=2**63, description="seed from which the tower's weights are drawn")

    config: Config

    def load(self) -> LVLM:
        import torch

        from arena.lvlm.zoo.models import TINY

        lvlm = super().load()
        with torch.random.fork_rng(devices=[]):
            drawn = replace(TINY["tiny-llava"], seed=self.config.tower_seed).build(lvlm.tokenizer)
        try:
            lvlm.module(lvlm.vision_tower).load_state_dict(drawn.get_submodule(lvlm.vision_tower).state_dict())
        except RuntimeError as error:
            raise ArenaError(
                f"model 'tiny-llava-untrained-tower': the weights in {self.folder} are of another vision tower than "
                "the zoo draws: reinstall the package, or make them anew with `arena zoo train tiny-llava`"
            ) from error
        return lvlm

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint()} tower {self.config.tower_seed}".encode()).hexdigest()
