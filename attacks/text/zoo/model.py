"""The paraphraser's sizes, and how an untrained one is built from transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from arena.lvlm.zoo.tokenizer import words
from attacks.text.zoo.lesson import Lesson

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True)
class Spec:
    """Every number that the weights depend on; `sizes` are fields of `T5Config`."""

    seed: int = 17
    vocab_size: int = 1800
    sizes: dict[str, Any] = field(
        default_factory=lambda: {
            "d_model": 96,
            "d_kv": 24,
            "d_ff": 256,
            "num_heads": 4,
            "num_layers": 2,
            "num_decoder_layers": 2,
        }
    )
    steps: int = 3000
    batch_size: int = 48
    learning_rate: float = 3e-3

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Byte-level BPE, lower case, over the tiny models' word list and questions drawn from `seed`.

        The words of the list weigh most, so that most are one token; nothing is unknown.
        """
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(SPECIAL.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        rng = np.random.default_rng((self.seed, 0))
        questions = [arrival.pair.question for arrival in Lesson().arrivals(rng, 4000, inserted=0)]
        tokenizer.train_from_iterator([*(f" {word}" for word in words() for _ in range(20)), *questions], trainer)
        end = SPECIAL["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=512, clean_up_tokenization_spaces=False, **SPECIAL
        )

    def build(self, tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
        """An untrained model, float32, initialised from `seed`."""
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        tokens: dict[str, Any] = {"pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad}
        config = T5Config(
            vocab_size=len(tokenizer),
            dropout_rate=0.0,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=64,
            **tokens,
            **self.sizes,
        )
        torch.manual_seed(self.seed)
        model = T5ForConditionalGeneration(config)
        model.generation_config = GenerationConfig.from_model_config(config)
        return model
