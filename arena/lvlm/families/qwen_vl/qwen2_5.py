"""Qwen2.5-VL (Bai 2025, arXiv 2502.13923)."""

from __future__ import annotations

from transformers import Qwen2_5_VLForConditionalGeneration

from arena.lvlm.families.qwen_vl.model import QwenVL


class Qwen2_5VL(QwenVL):
    """`Qwen2_5_VLForConditionalGeneration`: a tower with windowed attention, patches of 14 pixels."""

    family = "qwen2.5-vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
