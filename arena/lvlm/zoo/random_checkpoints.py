"""Tiny checkpoints with random weights, one a family, in the hub's format: real configuration classes at small sizes,
the family's own kind of tokenizer, its picture processor. For tests, and for a dry run of what big models will do.

``python -m arena.lvlm.zoo.random_checkpoints qwen3-vl FOLDER`` writes one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from arena.errors import UsageError
from arena.lvlm.zoo.models import TinyModel
from arena.lvlm.zoo.tokenizer import words

Parts = tuple[Any, Any, Any]
"""Model, tokenizer, picture processor."""

QWEN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
VOCABULARY = 2304

SPREAD = 0.15
"""Standard deviation of weights: at the usual 0.02 so small a model would attend to everything alike."""


def write(family: str, folder: Path, seed: int = 0) -> None:
    """Write a checkpoint of `family` to `folder`, its weights drawn from `seed`. Raises `UsageError` for an unknown
    family."""
    if family not in FAMILIES:
        raise UsageError(f"no family {family!r} among the random checkpoints: choose from {', '.join(FAMILIES)}")
    for part in FAMILIES[family](seed):
        part.save_pretrained(folder)


def llava(seed: int) -> Parts:
    spec, tokenizer = _llava(seed), llava_tokenizer()
    return spec.build(tokenizer), tokenizer, spec.image_processor()


def qwen2_5_vl(seed: int) -> Parts:
    tokenizer = qwen_tokenizer()
    vision = {"fullatt_block_indexes": [1], "window_size": 112, "tokens_per_second": 2, **_QWEN_VISION}
    text = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}, **_QWEN_TEXT}
    config = Qwen2_5_VLConfig(
        vision_config={"patch_size": 14, **vision},
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            **text,
        },
        **_qwen_ids(tokenizer),
    )
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56**2, "longest_edge": 12_845_056})
    return _drawn(Qwen2_5_VLForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


def qwen3_vl(seed: int) -> Parts:
    """The real processor starts at 256 x 256 pixels; this one at 64 x 64, so that small pictures stay small."""
    tokenizer = qwen_tokenizer()
    vision = {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, **_QWEN_VISION}
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config={"patch_size": 16, **vision},
        text_config={"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": rope, **_QWEN_TEXT},
        **_qwen_ids(tokenizer),
    )
    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        size={"shortest_edge": 64**2, "longest_edge": 16_777_216},
    )
    return _drawn(Qwen3VLForConditionalGeneration, config, tokenizer, seed), tokenizer, processor


FAMILIES: dict[str, Callable[[int], Parts]] = {"llava": llava, "qwen2.5-vl": qwen2_5_vl, "qwen3-vl": qwen3_vl}

_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 32,
    "initializer_range": SPREAD,
}
_QWEN_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32_768,
    "initializer_range": SPREAD,
}


@cache
def llava_tokenizer() -> Any:
    """That of the zoo's LLaVAs."""
    return _llava(0).tokenizer()


def _llava(seed: int) -> TinyModel:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "heads": 2}
    return TinyModel("random-llava", seed, VOCABULARY, image_size=48, patch_size=8, vision=sizes, text=sizes)


@cache
def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen's byte-level BPE and special tokens over the zoo's word list, a token a word."""
    corpus = [f" {word}" for word in words() for _ in range(20)]
    trained: Qwen2Tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        corpus, VOCABULARY, new_special_tokens=list(QWEN_TOKENS), show_progress=False
    )
    trained.eos_token = "<|im_end|>"
    return trained


def _qwen_ids(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}
    return {**ids, "tie_word_embeddings": True}


def _drawn(model_class: Any, config: Any, tokenizer: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = model_class(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny checkpoint with random weights in the hub's format.")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.family, given.folder, given.seed)


if __name__ == "__main__":
    main()
