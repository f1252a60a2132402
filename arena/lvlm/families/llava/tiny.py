"""Tiny LLaVAs: CLIP tower, two-layer projector, Llama."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from arena.lvlm.base import LVLM
from arena.lvlm.families.llava.model import Llava
from arena.lvlm.zoo.tiny import TinyModel, known_exchanges
from arena.lvlm.zoo.tokenizer import IMAGE, build_tokenizer


class LlavaSpec(TinyModel):
    """A patch is an image token."""

    architecture, tower, decoder = "LLaVA", "CLIP", "Llama"
    lvlm_class = Llava

    def tokenizer(self) -> PreTrainedTokenizerFast:
        sentences = [
            f"USER: {IMAGE}\n{question} ASSISTANT:" + (f" {answer}" if answer else "")
            for question, answer in known_exchanges()
        ]
        return build_tokenizer(sentences * 4, self.vocab_size)

    def build(self, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
        v, t = self.vision, self.text
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=v["hidden_size"],
                intermediate_size=4 * v["hidden_size"],
                num_hidden_layers=v["num_hidden_layers"],
                num_attention_heads=v["heads"],
                projection_dim=v["hidden_size"],
                image_size=self.image_size,
                patch_size=self.patch_size,
                hidden_act="gelu",
            ).to_dict(),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=t["hidden_size"],
                intermediate_size=3 * t["hidden_size"],
                num_hidden_layers=t["num_hidden_layers"],
                num_attention_heads=t["heads"],
                num_key_value_heads=t["heads"],
                max_position_embeddings=512,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=True,
            ).to_dict(),
            image_token_index=tokenizer.get_vocab()[IMAGE],
            image_seq_length=self.grid**2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
        )
        torch.manual_seed(self.seed)
        model = LlavaForConditionalGeneration(config)
        with torch.no_grad():  # CLIP's own scale leaves places too faint for so small a language model to find
            model.model.vision_tower.embeddings.position_embedding.weight.mul_(10)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.eval()
        return model

    def image_processor(self) -> CLIPImageProcessorPil:
        return CLIPImageProcessorPil(
            size={"shortest_edge": self.image_size},
            crop_size={"height": self.image_size, "width": self.image_size},
        )

    def patch_features(self, lvlm: LVLM, pixels: dict[str, Tensor]) -> Tensor:
        tower: Any = lvlm.module(lvlm.vision_tower)
        patches: Tensor = tower(pixels["pixel_values"], output_hidden_states=True).hidden_states[-1][:, 1:]
        return patches
