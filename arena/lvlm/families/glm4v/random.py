"""A random GLM-4.1V."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessorPil, Qwen2Tokenizer

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

IMAGE_TOKENS = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>")
TOKENS = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|video|>", *IMAGE_TOKENS)


def glm4v(seed: int) -> Parts:
    """The real processor starts at 112 x 112 pixels for two frames; this one at 56 x 56, so that small pictures stay
    small."""
    tokenizer = glm_tokenizer()
    config = Glm4vConfig(
        vision_config={"image_size": 56, "depth": 2, "num_heads": 2, "out_hidden_size": 32, **_SIZES},
        text_config={
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
            },
            **_SIZES,
        },
        **_ids(tokenizer),
    )
    processor = Glm4vImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 9_633_792})
    return drawn(Glm4vForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


_SIZES = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": SPREAD}


@cache
def glm_tokenizer() -> Any:
    """A byte-level BPE with GLM's special tokens."""
    return trained(Qwen2Tokenizer(), TOKENS, end="<|endoftext|>")


def _ids(tokenizer: Any) -> dict[str, Any]:
    names = {
        "image": "image",
        "video": "video",
        "image_start": "begin_of_image",
        "image_end": "end_of_image",
        "video_start": "begin_of_video",
        "video_end": "end_of_video",
    }
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


CHECKPOINTS: dict[str, Draw] = {"glm4v": glm4v}
