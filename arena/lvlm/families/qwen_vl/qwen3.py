"""Qwen3-VL (Bai 2025, arXiv 2511.21631)."""

from __future__ import annotations

from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from arena.lvlm.families.qwen_vl.model import QwenVL


class Qwen3VL(QwenVL):
    """`Qwen3VLForConditionalGeneration`: patches of 16 pixels, features of several depths of the tower added to the
    first layers of the language model (DeepStack, Meng 2024, arXiv 2406.04334)."""

    family = "qwen3-vl"
    model_class = Qwen3VLForConditionalGeneration
    system = ""

    def module(self, name: str) -> nn.Module:
        """As the base class's; the projector is the merger and DeepStack's mergers together."""
        found = super().module(name)
        if name != self.projector:
            return found
        return nn.ModuleList([found, super().module("model.visual.deepstack_merger_list")])
