"""A random Gemma 3."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    GemmaTokenizer,
)

from arena.lvlm.families.drawing import SPREAD, VOCABULARY, Draw, Parts, drawn
from arena.lvlm.zoo.tokenizer import words

TOKENS = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")
SIDE = 96
"""Of a picture in pixels, which makes 6 x 6 image tokens."""
WINDOW = 48
"""Tokens that a layer with a sliding window sees: fewer than a prompt has, so that the window matters."""


def gemma3(seed: int) -> Parts:
    tokenizer = gemma_tokenizer()
    ids = dict(zip(TOKENS, tokenizer.convert_tokens_to_ids(list(TOKENS)), strict=True))
    config = Gemma3Config(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": SIDE,
            "patch_size": 8,
            "vision_use_head": False,
            **_LAYERS,
        },
        text_config={
            "model_type": "gemma3_text",
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "max_position_embeddings": 8192,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "eos_token_id": tokenizer.eos_token_id,
            **_LAYERS,
        },
        mm_tokens_per_image=36,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    model = drawn(Gemma3ForConditionalGeneration, config, tokenizer, seed)
    with torch.no_grad():  # zeros in a fresh model, which would be blind
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, SPREAD)
    return model, tokenizer, Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})


@cache
def gemma_tokenizer() -> Any:
    """Gemma's BPE with a token a byte for what it has no piece for, over the zoo's word list, a token a word."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *TOKENS]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[*control, *every_byte], show_progress=False)
    core.train_from_iterator([f" {word}" for word in words() for _ in range(20)], trainer)
    learned = json.loads(core.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]
    named = {"boi_token": TOKENS[2], "eoi_token": TOKENS[3], "image_token": TOKENS[4]}
    tokenizer = GemmaTokenizer(
        vocab=learned["vocab"], merges=merges, add_bos_token=True, model_specific_special_tokens=named
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
    tokenizer.eos_token = "<end_of_turn>"
    return tokenizer


_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": SPREAD,
}


CHECKPOINTS: dict[str, Draw] = {"gemma3": gemma3}
