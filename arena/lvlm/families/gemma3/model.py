"""Gemma 3 (Gemma Team 2025, arXiv 2503.19786): a picture is resized to a square and becomes a fixed number of tokens,
which attend to each other in both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil
from transformers.masking_utils import create_causal_mask

from arena.errors import ArenaError
from arena.lvlm import pixels
from arena.lvlm.base import LVLM
from arena.lvlm.loading import beginning


class Gemma3(LVLM):
    """`Gemma3ForConditionalGeneration`; an image token is a square block of patches (average pooling).

    Most layers see a window of the last tokens only. Pan and scan, extra crops of long pictures that its processor can
    be told to add, is refused.
    """

    family = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    processor_class = Gemma3ImageProcessorPil
    vision_tower = "model.vision_tower"
    projector = "model.multi_modal_projector"
    language_model = "model.language_model"
    no_flash = "image tokens attend in both directions, which flash attention leaves out"

    def __init__(self, model: Any, tokenizer: Any, processor: Gemma3ImageProcessorPil) -> None:
        super().__init__(model, tokenizer, processor)
        if processor.do_pan_and_scan:
            raise ArenaError(
                "gemma3: the checkpoint's preprocessor_config.json turns on pan and scan, crops besides the picture, "
                "which the arena does not model: set do_pan_and_scan to false there, as Gemma 3's own checkpoints do"
            )
        self.module("model").register_forward_pre_hook(_attend, with_kwargs=True)

    def template(self, question: str) -> tuple[str, str, str]:
        after = "<end_of_turn>\n<start_of_turn>model\n"
        return f"{beginning(self.tokenizer)}<start_of_turn>user\n", "", after

    def around_answer(self) -> tuple[str, str]:
        return "", "<end_of_turn>"

    def image_text(self, height: int, width: int) -> str:
        config = self.model.config
        ids = [config.boi_token_id, *[config.image_token_id] * config.mm_tokens_per_image, config.eoi_token_id]
        return "\n\n" + "".join(self.tokenizer.convert_ids_to_tokens(ids)) + "\n\n"

    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        p = self.processor
        outputs: dict[int, Tensor] = {}
        for places, stack in pixels.by_size(images):
            x = pixels.resize(pixels.to_bytes(stack), p.size["height"], p.size["width"], p.resample)
            outputs.update(zip(places, pixels.normalize(x, p.image_mean, p.image_std), strict=True))
        stacked = torch.stack([outputs[i] for i in range(len(images))])
        return {"pixel_values": stacked.to(self.device, self.model.dtype)}

    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        scale = change["pixel_values"].new_tensor(self.processor.image_std).view(3, 1, 1)
        config = self.model.config
        patches = config.vision_config.image_size // config.vision_config.patch_size
        block = patches // math.isqrt(config.mm_tokens_per_image) * config.vision_config.patch_size
        means = F.avg_pool2d((change["pixel_values"] * scale).abs().mean(1, keepdim=True), block)
        return list(means.flatten(1))


def _attend(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a call of transformers' `Gemma3Model` needs besides the arena's own arguments.

    Where there are pictures, which tokens are theirs. Where keys and values are to be kept, a place that keeps all of
    them: the model's own drops those beyond the window of a layer, counted from the end of the padded batch. Where a
    sequence is continued after gaps, masks whose windows count tokens, not gaps.
    """
    ids, mask, cache = kwargs.get("input_ids"), kwargs.get("attention_mask"), kwargs.get("cache")
    added: dict[str, Any] = {}
    if ids is None:
        return args, kwargs
    pictures = kwargs.get("pixel_values") is not None or kwargs.get("mm_encoder_outputs")
    if pictures and kwargs.get("token_type_ids") is None:
        added["token_type_ids"] = (ids == model.config.image_token_id).int()
    if cache is None and kwargs.get("use_cache"):
        added["cache"] = DynamicCache()
    if cache is not None and isinstance(mask, Tensor) and cache.get_seq_length() and not any(cache.is_sliding):
        added["attention_mask"] = _masks_after_gaps(model, ids, mask, cache)
    return args, {**kwargs, **added}


def _masks_after_gaps(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> dict[str, Any]:
    """Masks by kind of layer for tokens `ids` ``(B, T)`` after those of `cache`; `mask` ``(B, P + T)`` has zeros in
    gaps."""
    config = model.config.get_text_config()
    places = mask.cumsum(1)

    def in_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near: Tensor = places[batch, query] - places[batch, key] < config.sliding_window
        return near

    given = {
        "config": config,
        "inputs_embeds": torch.empty(*ids.shape, 0, dtype=model.dtype, device=ids.device),
        "attention_mask": mask,
        "cache": cache,
        "position_ids": None,
    }
    return {
        "full_attention": create_causal_mask(**given),
        "sliding_attention": create_causal_mask(**given, and_mask_function=in_window),
    }
