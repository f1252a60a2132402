"""The shipped tiny models: their sizes, their seeds, and how an untrained one is built from transformers' own
classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from arena.data import glyphs, scenes
from arena.lvlm.zoo.tokenizer import IMAGE, build_tokenizer


@dataclass(frozen=True)
class TinyModel:
    """Sizes and training lengths of one tiny LVLM; every number that its weights depend on."""

    name: str
    seed: int
    vocab_size: int
    image_size: int
    patch_size: int
    vision: dict[str, int]
    text: dict[str, int]
    tower_steps: int = 1000
    language_steps: int = 6000
    joint_steps: int = 2000

    def tokenizer(self) -> PreTrainedTokenizerFast:
        colours, shapes = tuple(scenes.COLOURS), scenes.SHAPES
        sentences = [
            *(
                f"USER: {IMAGE}\nwhat colour is the {shape}? ASSISTANT: {colour}"
                for shape in shapes
                for colour in colours
            ),
            *(f"USER: {IMAGE}\n{question} ASSISTANT:" for question in glyphs.QUESTIONS),
        ]
        return build_tokenizer(sentences * 4, self.vocab_size)

    def build(self, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
        """An untrained model, float32, initialised from `seed`."""
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
            image_seq_length=(self.image_size // self.patch_size) ** 2,
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


TINY = {
    "tiny-llava": TinyModel(
        "tiny-llava",
        seed=31,
        vocab_size=2000,
        image_size=64,
        patch_size=16,
        vision={"hidden_size": 96, "num_hidden_layers": 3, "heads": 4},
        text={"hidden_size": 96, "num_hidden_layers": 4, "heads": 6},
    ),
    "tiny-llava-48": TinyModel(
        "tiny-llava-48",
        seed=23,
        vocab_size=1700,
        image_size=48,
        patch_size=12,
        vision={"hidden_size": 80, "num_hidden_layers": 4, "heads": 4},
        text={"hidden_size": 112, "num_hidden_layers": 3, "heads": 4},
        joint_steps=1500,
    ),
}
