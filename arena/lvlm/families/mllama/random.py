"""A random Llama-3.2-Vision, with two cross-attention layers among its six."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import AddedToken, processors
from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from arena.lvlm.families.drawing import SPREAD, Draw, Parts, drawn, trained

BEGIN, END, PAD, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>", "<|image|>"
TOKENS = (BEGIN, END, PAD, "<|start_header_id|>", "<|end_header_id|>")

GATE = 0.5
"""Of gates, which are drawn as zero: then no layer would look at the picture."""


def mllama(seed: int) -> Parts:
    """The real tiles are of 560 x 560 pixels, in patches of 14; these of 48 x 48, in patches of 8."""
    tokenizer = mllama_tokenizer()
    vision = {
        "image_size": 48,
        "patch_size": 8,
        "attention_heads": 2,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 64,
        **_SIZES,
    }
    text = {
        "vocab_size": len(tokenizer) - 1,
        "num_hidden_layers": 6,
        "cross_attention_layers": [1, 4],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **_SIZES,
    }
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=image)
    model = drawn(MllamaForConditionalGeneration, config, tokenizer, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.shape == (1,):
                parameter.fill_(GATE)
    processor = MllamaImageProcessorPil(size={"height": 48, "width": 48})
    return model, tokenizer, processor


_SIZES = {"hidden_size": 32, "intermediate_size": 64, "initializer_range": SPREAD}


@cache
def mllama_tokenizer() -> Any:
    """Llama 3's kind of byte-level BPE, which begins every text with a token; the picture's token comes after the
    vocabulary of the output layer."""
    backend = trained(Qwen2Tokenizer(), TOKENS, end=END).backend_tokenizer
    backend.add_special_tokens([AddedToken(IMAGE, normalized=False, special=True)])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BEGIN, eos_token=END, pad_token=PAD)


CHECKPOINTS: dict[str, Draw] = {"llama-3.2-vision": mllama}
