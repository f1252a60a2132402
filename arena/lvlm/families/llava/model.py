"""LLaVA: CLIP tower, two-layer projector, Llama (Liu 2023, arXiv 2304.08485 and 2310.03744)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from arena.lvlm import pixels
from arena.lvlm.base import LVLM


class Llava(LVLM):
    """`LlavaForConditionalGeneration` with CLIP's processor: resize the shorter edge, crop the centre."""

    family = "llava"
    model_class = LlavaForConditionalGeneration
    processor_class = CLIPImageProcessorPil
    vision_tower = "model.vision_tower"
    projector = "model.multi_modal_projector"
    language_model = "model.language_model"

    def template(self, question: str) -> tuple[str, str, str]:
        return "USER: ", "\n", " ASSISTANT:"

    def around_answer(self) -> tuple[str, str]:
        return " ", str(self.tokenizer.eos_token)

    def image_text(self, height: int, width: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id)) * self._side**2

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        edge, crop = self.processor.size["shortest_edge"], self.processor.crop_size
        outputs: dict[int, Tensor] = {}
        for places, stack in pixels.by_size(images):
            target = pixels.shortest_edge(stack.shape[-2], stack.shape[-1], edge)
            x = pixels.resize(pixels.to_bytes(stack), *target, self.processor.resample)
            x = pixels.center_crop(x, crop["height"], crop["width"])
            x = pixels.normalize(x, self.processor.image_mean, self.processor.image_std)
            outputs.update(zip(places, x, strict=True))
        stacked = torch.stack([outputs[i] for i in range(len(images))])
        return {"pixel_values": stacked.to(self.device, self.model.dtype)}

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        scale = change["pixel_values"].new_tensor(self.processor.image_std).view(3, 1, 1)
        patch = self.model.config.vision_config.patch_size
        means = F.avg_pool2d((change["pixel_values"] * scale).abs().mean(1, keepdim=True), patch)
        return list(means.flatten(1))

    @property
    def _side(self) -> int:
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)
