"""Random models of the Qwen-VL generations."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen2_5_vl(seed: int) -> Parts:
    tokenizer = qwen_tokenizer()
    vision = {"fullatt_block_indexes": [1], "window_size": 112, "tokens_per_second": 2, **_VISION}
    text = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}, **_TEXT}
    config = Qwen2_5_VLConfig(
        vision_config={"patch_size": 14, **vision},
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            **text,
        },
        **placeholder_ids(tokenizer),
    )
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 12_845_056})
    return drawn(Qwen2_5_VLForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


def qwen3_vl(seed: int) -> Parts:
    """The real processor starts at 256 x 256 pixels; this one at 64 x 64, so that small pictures stay small."""
    tokenizer = qwen_tokenizer()
    vision = {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, **_VISION}
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config={"patch_size": 16, **vision},
        text_config={"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": rope, **_TEXT},
        **placeholder_ids(tokenizer),
    )
    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        size={"shortest_edge": 64**2, "longest_edge": 16_777_216},
    )
    return drawn(Qwen3VLForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 32,
    "initializer_range": SPREAD,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32_768,
    "initializer_range": SPREAD,
}


@cache
def qwen_tokenizer() -> Any:
    """Qwen's byte-level BPE and special tokens."""
    return trained(Qwen2Tokenizer(), TOKENS, end="<|im_end|>")


def placeholder_ids(tokenizer: Any) -> dict[str, Any]:
    """What a configuration says of the tokens that stand for pictures and films; embeddings are tied."""
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}
    return {**ids, "tie_word_embeddings": True}


CHECKPOINTS: dict[str, Draw] = {"qwen2.5-vl": qwen2_5_vl, "qwen3-vl": qwen3_vl}
