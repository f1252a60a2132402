"""LoRA adapters on a vision-language model, and the state of whatever is trainable."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from arena.errors import ArenaError
from arena.lvlm.base import LVLM


def linear_modules(lvlm: LVLM, name: str) -> list[str]:
    """Full names of the linear layers of the family module `name`: attention and MLP projections, or itself."""
    return [n for n, m in lvlm.model.named_modules() if f"{n}.".startswith(f"{name}.") and isinstance(m, nn.Linear)]


def with_model(lvlm: LVLM, model: Any) -> LVLM:
    """The same LVLM around another model object (a wrapped one, a replica)."""
    bound = copy.copy(lvlm)
    bound.model = model
    return bound


def attach_lora(lvlm: LVLM, rank: int, alpha: int, dropout: float, modules: Sequence[str], **options: Any) -> LVLM:
    """Freeze the model and attach fresh LoRA adapters to `modules`; randomness from torch's global generator."""
    from peft import LoraConfig, get_peft_model  # slow to import, and not needed to read a suite

    for p in lvlm.model.parameters():
        p.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(modules), **options)
    return with_model(lvlm, get_peft_model(lvlm.model, config))


def detach_lora(lvlm: LVLM) -> LVLM:
    """The base model again, adapters discarded."""
    return with_model(lvlm, lvlm.model.unload())


@contextmanager
def fused(lvlm: LVLM) -> Iterator[None]:
    """Adapters added into the weights for the block, which saves two products a layer; exactly undone afterwards.

    Models in half precision are left alone: rounding the sum would lose most of what the adapters learned.
    """
    from peft.tuners.lora import LoraLayer

    layers = [m for m in lvlm.model.modules() if isinstance(m, LoraLayer) and m.weight.dtype == torch.float32]
    weights = [layer.weight.data for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data = weight.clone()
        layer.merge()
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.unmerge()
            layer.weight.data = weight


def trainable(lvlm: LVLM) -> dict[str, nn.Parameter]:
    """The parameters that an optimizer would get, by name."""
    return {n: p for n, p in lvlm.model.named_parameters() if p.requires_grad}


def trainable_state(lvlm: LVLM) -> dict[str, Tensor]:
    """A copy of the trainable parameters on the CPU."""
    return {n: p.detach().cpu().clone() for n, p in trainable(lvlm).items()}


def load_trainable(lvlm: LVLM, state: dict[str, Tensor]) -> None:
    """Put back what `trainable_state` took; names and shapes must match exactly."""
    parameters = trainable(lvlm)
    if parameters.keys() != state.keys():
        wrong = sorted(parameters.keys() ^ state.keys())[:3]
        raise ArenaError(
            f"checkpoint does not fit the recipe: {', '.join(wrong)}; it was made by another recipe or model"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
