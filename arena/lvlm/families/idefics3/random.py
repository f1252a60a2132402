"""Random models of Idefics3's kind: one with Llama's kind of tokenizer, which writes a tile's row and column as text,
one with SmolLM's, which has a token for each."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import (
    GPT2Tokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
EDGE = 32
"""Side of a tile in pixels. The longer side of a picture takes three, where the real processors have four."""


def idefics3(seed: int) -> Parts:
    tokenizer = llama_tokenizer()
    config = Idefics3Config(**_config(tokenizer, 5e5))
    return (
        drawn(Idefics3ForConditionalGeneration, config, tokenizer, seed),
        tokenizer,
        Idefics3ImageProcessorPil(**_SIZES),
    )


def smolvlm(seed: int) -> Parts:
    tokenizer = smollm_tokenizer()
    config = SmolVLMConfig(**_config(tokenizer, 273_768.0))
    return (
        drawn(SmolVLMForConditionalGeneration, config, tokenizer, seed),
        tokenizer,
        SmolVLMImageProcessorPil(**_SIZES),
    )


_SIZES: dict[str, Any] = {"size": {"longest_edge": 3 * EDGE}, "max_image_size": {"longest_edge": EDGE}}


@cache
def llama_tokenizer() -> Any:
    """Byte-level BPE that begins every text, as Llama 3's."""
    tokens = ("<|begin_of_text|>", "<|end_of_text|>", *TOKENS)
    core = trained(GPT2Tokenizer(), tokens, end="<end_of_utterance>").backend_tokenizer
    begin = "<|begin_of_text|>"
    core.post_processor = TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, core.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=begin, eos_token="<end_of_utterance>", pad_token="<|end_of_text|>"
    )


@cache
def smollm_tokenizer() -> Any:
    """SmolLM's byte-level BPE and special tokens."""
    tokens = ("<|im_start|>", "<|im_end|>", "<global-img>", *TOKENS, *TILES)
    tokenizer = trained(GPT2Tokenizer(), tokens, end="<end_of_utterance>")
    tokenizer.bos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>"
    return tokenizer


def _config(tokenizer: Any, theta: float) -> dict[str, Any]:
    vision = {"image_size": EDGE, "patch_size": 8, **_LAYERS}
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **_LAYERS,
    }
    return {
        "vision_config": vision,
        "text_config": text,
        "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": SPREAD,
}


CHECKPOINTS: dict[str, Draw] = {"idefics3": idefics3, "smolvlm": smolvlm}
