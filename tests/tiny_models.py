"""Small random models for tests, built from transformers' own classes."""

from __future__ import annotations

from functools import cache

from arena.lvlm.families.idefics3.tiny import Idefics3Spec
from arena.lvlm.families.llava.model import Llava
from arena.lvlm.families.llava.tiny import LlavaSpec
from arena.lvlm.families.qwen_vl.tiny import Qwen3VLSpec


def small_model(
    name: str = "test", seed: int = 3, vocab_size: int = 900, image_size: int = 48, patch_size: int = 8
) -> LlavaSpec:
    return LlavaSpec(
        name,
        seed=seed,
        vocab_size=vocab_size,
        image_size=image_size,
        patch_size=patch_size,
        vision={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2},
        text={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2},
    )


def small_qwen3_vl(**steps: int) -> Qwen3VLSpec:
    return Qwen3VLSpec(
        "test-qwen3-vl",
        seed=3,
        vocab_size=900,
        image_size=64,
        patch_size=8,
        vision={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2, "deepstack": 0},
        text={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2},
        **steps,
    )


def small_idefics3(**steps: int) -> Idefics3Spec:
    return Idefics3Spec(
        "test-idefics3",
        seed=3,
        vocab_size=900,
        image_size=64,
        patch_size=8,
        vision={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2},
        text={"hidden_size": 32, "num_hidden_layers": 2, "heads": 2},
        **steps,
    )


@cache
def _tokenizer(vocab_size: int):
    return small_model(vocab_size=vocab_size).tokenizer()


def tiny_random_llava(seed: int = 3, **sizes: int) -> Llava:
    """An untrained two-layer LLaVA; a fresh one each call."""
    spec = small_model(seed=seed, **sizes)
    tokenizer = _tokenizer(spec.vocab_size)
    return Llava(spec.build(tokenizer), tokenizer, spec.image_processor())
