"""A random MiniCPM-V 4.6, its language model of state layers and full-attention layers in turn."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import (
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6ImageProcessorPil,
    Qwen2Tokenizer,
    Qwen3_5TextConfig,
)

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}

CHAT = (
    "{%- for message in messages %}<|im_start|>{{ message.role + '\n' }}"
    "{%- for part in message.content %}{{ part.text if part.type == 'text' else '<|image_pad|>\n' }}{% endfor -%}"
    "<|im_end|>{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
)


def minicpmv(seed: int) -> Parts:
    """The real processor aims at views of 448 x 448 pixels in patches of 14; this one at 96 x 96 in patches of 4."""
    tokenizer = minicpmv_tokenizer()
    vision = {"image_size": 96, "patch_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, **_SIZES}
    text_config: Any = Qwen3_5TextConfig
    text = text_config(
        vocab_size=len(tokenizer),
        num_hidden_layers=4,
        layer_types=["linear_attention", "full_attention"] * 2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        **_SIZES,
    )
    config = MiniCPMV4_6Config(
        vision_config=vision,
        text_config=text,
        insert_layer_id=0,
        image_token_id=tokenizer.convert_tokens_to_ids(TOKENS["image_token"]),
        video_token_id=tokenizer.convert_tokens_to_ids(TOKENS["video_token"]),
        tie_word_embeddings=True,
    )
    processor = MiniCPMV4_6ImageProcessorPil(patch_size=4, scale_resolution=96)
    model = drawn(MiniCPMV4_6ForConditionalGeneration, config, tokenizer, seed)
    with torch.no_grad():  # transformers draws these at 1, at which rounding a pixel would turn the picture's gradient
        for projection in model.model.vision_tower.vit_merger.self_attn.children():
            projection.weight.mul_(SPREAD)
    return model, tokenizer, processor


_SIZES = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": SPREAD}


@cache
def minicpmv_tokenizer() -> Any:
    """Qwen's byte-level BPE with MiniCPM-V's special tokens, which the processor reads off the tokenizer."""
    tokenizer = trained(Qwen2Tokenizer(), ("<|im_start|>", "<|im_end|>", *TOKENS.values()), end="<|im_end|>")
    tokenizer._set_model_specific_special_tokens(TOKENS)
    tokenizer.chat_template = CHAT
    return tokenizer


CHECKPOINTS: dict[str, Draw] = {"minicpm-v": minicpmv}
