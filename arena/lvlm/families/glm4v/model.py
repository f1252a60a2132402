"""GLM-4.1V (GLM-V Team 2025, arXiv 2507.01006)."""

from __future__ import annotations

from transformers import Glm4vForConditionalGeneration, Glm4vImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize

from arena.lvlm.families.native_resolution import NativeResolution


class Glm4v(NativeResolution):
    """`Glm4vForConditionalGeneration`: patches of 14 pixels; a range of areas that counts a still picture as its two
    frames.

    The base model has no chat template of its own, so it is given the one of GLM-4.1V-9B-Thinking, without thoughts:
    the answer follows at once.
    """

    family = "glm4v"
    model_class = Glm4vForConditionalGeneration
    processor_class = Glm4vImageProcessorPil
    brackets = ("<|begin_of_image|>", "<|end_of_image|>")

    def template(self, question: str) -> tuple[str, str, str]:
        return "[gMASK]<sop><|user|>\n", "", "<|assistant|>\n"

    def around_answer(self) -> tuple[str, str]:
        """The format marks no end of a turn but the beginning of the next; the end of text ends all generation."""
        return "", str(self.tokenizer.eos_token)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        p = self.processor
        size: tuple[int, int] = smart_resize(
            num_frames=p.temporal_patch_size,
            height=height,
            width=width,
            temporal_factor=p.temporal_patch_size,
            factor=p.patch_size * p.merge_size,
            min_pixels=p.size["shortest_edge"],
            max_pixels=p.size["longest_edge"],
        )
        return size
