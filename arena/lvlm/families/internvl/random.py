"""A random InternVL."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    Qwen2Tokenizer,
)

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

TOKENS = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")


def internvl(seed: int) -> Parts:
    """InternVL 3, whose language model is Qwen2.5."""
    return _internvl(seed, {"model_type": "qwen2"})


def internvl3_5(seed: int) -> Parts:
    """InternVL 3.5, whose language model is Qwen3."""
    return _internvl(seed, {"model_type": "qwen3", "head_dim": 16})


def _internvl(seed: int, text: dict[str, Any]) -> Parts:
    """The real processor cuts tiles of 448 pixels, up to 12; this one of 48, up to 6, so that sequences stay short."""
    tokenizer = internvl_tokenizer()
    config = InternVLConfig(
        vision_config={"image_size": 48, "patch_size": 4, "attention_bias": True, **_SIZES},
        text_config={
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 1,
            "max_position_embeddings": 32_768,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            **_SIZES,
            **text,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=36,
        tie_word_embeddings=True,
    )
    processor = GotOcr2ImageProcessorPil(
        size={"height": 48, "width": 48},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        max_patches=6,
    )
    return drawn(InternVLForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": SPREAD,
}


@cache
def internvl_tokenizer() -> Any:
    """Qwen's byte-level BPE with InternVL's special tokens."""
    return trained(Qwen2Tokenizer(), TOKENS, end="<|im_end|>")


CHECKPOINTS: dict[str, Draw] = {"internvl": internvl, "internvl3.5": internvl3_5}
