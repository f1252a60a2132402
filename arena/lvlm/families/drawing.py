"""What random checkpoints have in common: how weights are drawn, and a byte-level tokenizer over the zoo's words.

A family's ``random.py`` has a function a checkpoint, which takes a seed, and the table `CHECKPOINTS` of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from arena.lvlm.zoo.tokenizer import words

Parts = tuple[Any, Any, Any]
"""Model, tokenizer, picture processor."""

Draw = Callable[[int], Parts]
"""What draws a checkpoint from a seed."""

VOCABULARY = 2304

SPREAD = 0.15
"""Standard deviation of weights: at the usual 0.02 so small a model would attend to everything alike."""


def drawn(model_class: Any, config: Any, tokenizer: PreTrainedTokenizerBase, seed: int) -> Any:
    """A model of `config`, its weights drawn from `seed`, that ends answers where the tokenizer says."""
    torch.manual_seed(seed)
    model = model_class(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def trained(untrained: Any, special_tokens: Sequence[str], end: str, size: int = VOCABULARY) -> Any:
    """A tokenizer of the same kind as `untrained` over the zoo's word list, a token a word; `end` ends a turn."""
    corpus = [f" {word}" for word in words() for _ in range(20)]
    tokenizer = untrained.train_new_from_iterator(
        corpus, size, new_special_tokens=list(special_tokens), show_progress=False
    )
    tokenizer.eos_token = end
    return tokenizer
