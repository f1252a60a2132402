"""Tiny Idefics3: SigLIP tower, pixel shuffle, Llama."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    GPT2Tokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
)

from arena.lvlm.base import LVLM
from arena.lvlm.families.idefics3.model import Idefics3
from arena.lvlm.zoo.tiny import TinyModel, first_words, known_exchanges
from arena.lvlm.zoo.tokenizer import vocabulary

BEGIN, PAD, END = "<|im_start|>", "<|im_end|>", "<end_of_utterance>"
TOKENS = (BEGIN, PAD, END, "<fake_token_around_image>", "<global-img>", "<image>")


class Idefics3Spec(TinyModel):
    """A block of 2 x 2 patches is an image token; a picture is a single tile."""

    architecture, tower, decoder = "Idefics3", "SigLIP", "Llama"
    merge = 2
    lvlm_class = Idefics3

    def tokenizer(self) -> Any:
        """SmolLM's kind, where the chat template begins a text."""
        sentences = [
            f"User:{question}{END}\nAssistant:" + (f" {answer}{END}" if answer else "")
            for question, answer in known_exchanges()
        ]
        starts = [f"User:{word} " for word in first_words()]
        corpus = [*(f" {word}" for word in vocabulary() for _ in range(20)), *sentences * 4, *starts * 20]
        tokenizer = GPT2Tokenizer(model_max_length=512).train_new_from_iterator(
            corpus, self.vocab_size, new_special_tokens=list(TOKENS), show_progress=False
        )
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = BEGIN, END, PAD
        return tokenizer

    def build(self, tokenizer: Any) -> Idefics3ForConditionalGeneration:
        v, t = self.vision, self.text
        config = Idefics3Config(
            vision_config={
                "hidden_size": v["hidden_size"],
                "intermediate_size": 4 * v["hidden_size"],
                "num_hidden_layers": v["num_hidden_layers"],
                "num_attention_heads": v["heads"],
                "image_size": self.image_size,
                "patch_size": self.patch_size,
            },
            text_config={
                "model_type": "llama",
                "vocab_size": len(tokenizer),
                "hidden_size": t["hidden_size"],
                "intermediate_size": 3 * t["hidden_size"],
                "num_hidden_layers": t["num_hidden_layers"],
                "num_attention_heads": t["heads"],
                "num_key_value_heads": t["heads"],
                "max_position_embeddings": 512,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                "tie_word_embeddings": True,
            },
            scale_factor=self.merge,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            tie_word_embeddings=True,
        )
        torch.manual_seed(self.seed)
        model = Idefics3ForConditionalGeneration(config)
        with torch.no_grad():  # the usual scale leaves places too faint for so small a language model to find
            model.model.vision_model.embeddings.position_embedding.weight.mul_(10)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.eval()
        return model

    def image_processor(self) -> Idefics3ImageProcessorPil:
        edge = {"longest_edge": self.image_size}
        return Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)

    def patch_features(self, lvlm: LVLM, pixels: dict[str, Tensor]) -> Tensor:
        tower: Any = lvlm.module(lvlm.vision_tower)
        features: Tensor = tower(pixels["pixel_values"][:, 0]).last_hidden_state
        return features
