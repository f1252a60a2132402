"""What the Qwen-VL generations share (Qwen2-VL, Wang 2024, arXiv 2409.12191)."""

from __future__ import annotations

from typing import ClassVar

from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from arena.lvlm.families.native_resolution import NativeResolution


class QwenVL(NativeResolution):
    """The chat format of Qwen, and a rule for sizes that counts the pixels of a picture once."""

    processor_class = Qwen2VLImageProcessorPil
    brackets = ("<|vision_start|>", "<|vision_end|>")
    system: ClassVar[str]
    """What the chat template says before the user's turn."""

    def template(self, question: str) -> tuple[str, str, str]:
        return f"{self.system}<|im_start|>user\n", "", "<|im_end|>\n<|im_start|>assistant\n"

    def around_answer(self) -> tuple[str, str]:
        return "", "<|im_end|>"

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        p = self.processor
        size: tuple[int, int] = smart_resize(
            height, width, p.patch_size * p.merge_size, p.size["shortest_edge"], p.size["longest_edge"]
        )
        return size
