"""Tiny Qwen3-VL: a tower with learned and rotary positions, DeepStack from one layer, Qwen3 with M-RoPE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from arena.lvlm.base import LVLM
from arena.lvlm.families.qwen_vl.qwen3 import Qwen3VL
from arena.lvlm.families.qwen_vl.random import TOKENS, placeholder_ids
from arena.lvlm.zoo.tiny import TinyModel, answer_words, first_words, known_exchanges
from arena.lvlm.zoo.tokenizer import vocabulary


class Qwen3VLSpec(TinyModel):
    """A block of 2 x 2 patches is an image token."""

    architecture, tower, decoder = "Qwen3-VL", "Qwen3-VL's", "Qwen3"
    merge = 2
    lvlm_class = Qwen3VL

    def tokenizer(self) -> Any:
        """Qwen's own kind. Questions and answers begin without a space here, so words that begin one are single tokens
        without a space too."""
        turns = [("user", question) for question, _ in known_exchanges()]
        turns += [("user", f"{word} ") for word in first_words()]
        turns += [("assistant", word) for word in answer_words()]
        sentences = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns]
        corpus = [*(f" {word}" for word in vocabulary() for _ in range(20)), *sentences * 20]
        tokenizer = Qwen2Tokenizer(model_max_length=512).train_new_from_iterator(
            corpus, self.vocab_size, new_special_tokens=list(TOKENS), show_progress=False
        )
        tokenizer.eos_token = "<|im_end|>"
        return tokenizer

    def build(self, tokenizer: Any) -> Qwen3VLForConditionalGeneration:
        v, t = self.vision, self.text
        config = Qwen3VLConfig(
            vision_config={
                "hidden_size": v["hidden_size"],
                "intermediate_size": 4 * v["hidden_size"],
                "depth": v["num_hidden_layers"],
                "num_heads": v["heads"],
                "out_hidden_size": t["hidden_size"],
                "patch_size": self.patch_size,
                "spatial_merge_size": self.merge,
                "num_position_embeddings": self.grid**2,
                "deepstack_visual_indexes": [v["deepstack"]],
            },
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": t["hidden_size"],
                "intermediate_size": 3 * t["hidden_size"],
                "num_hidden_layers": t["num_hidden_layers"],
                "num_attention_heads": t["heads"],
                "num_key_value_heads": t["heads"],
                "head_dim": t["hidden_size"] // t["heads"],
                "max_position_embeddings": 512,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    "mrope_section": [4, 2, 2],
                    "mrope_interleaved": True,
                },
            },
            **placeholder_ids(tokenizer),
        )
        torch.manual_seed(self.seed)
        model = Qwen3VLForConditionalGeneration(config)
        with torch.no_grad():  # the usual scale leaves places too faint for so small a language model to find
            model.model.visual.pos_embed.weight.mul_(10)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.eval()
        return model

    def image_processor(self) -> Qwen2VLImageProcessorPil:
        """Every picture gets the area of a scene, so about as many tokens."""
        area = self.image_size**2
        return Qwen2VLImageProcessorPil(
            patch_size=self.patch_size,
            merge_size=self.merge,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            size={"shortest_edge": area, "longest_edge": area},
        )

    def patch_features(self, lvlm: LVLM, pixels: dict[str, Tensor]) -> Tensor:
        tower: Any = lvlm.module(lvlm.vision_tower)
        features = tower(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"]).last_hidden_state
        blocks, side = self.grid // self.merge, self.merge  # patches of a block follow each other
        rows: Tensor = features.view(-1, blocks, blocks, side, side, features.shape[-1]).transpose(2, 3)
        return rows.flatten(1, 4)

    def beginning_positions(self, lvlm: LVLM, ids: Tensor) -> Tensor:
        """``(3, length)``, moved so that the question stands where it would without a picture; see
        `arena.lvlm.families.patch_lists`."""
        model: Any = lvlm.module("model")
        positions, behind = model.get_rope_index(
            ids[None],
            mm_token_type_ids=(ids[None] == lvlm.image_token_id).int(),
            image_grid_thw=torch.tensor([[1, self.grid, self.grid]]),
        )
        moved: Tensor = (positions - behind)[:, 0]
        return moved
