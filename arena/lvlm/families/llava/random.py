"""A random LLaVA, with the tokenizer of the zoo's LLaVAs."""

from __future__ import annotations

from functools import cache
from typing import Any

from arena.lvlm.families.drawing import VOCABULARY, Draw, Parts
from arena.lvlm.families.llava.tiny import LlavaSpec


def llava(seed: int) -> Parts:
    spec, tokenizer = _llava(seed), llava_tokenizer()
    return spec.build(tokenizer), tokenizer, spec.image_processor()


@cache
def llava_tokenizer() -> Any:
    return _llava(0).tokenizer()


def _llava(seed: int) -> LlavaSpec:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "heads": 2}
    return LlavaSpec("random-llava", seed, VOCABULARY, image_size=48, patch_size=8, vision=sizes, text=sizes)


CHECKPOINTS: dict[str, Draw] = {"llava": llava}
