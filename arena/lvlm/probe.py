"""Attention weights of chosen layers and query positions, without computing them anywhere else.

Registers an attention function with transformers that runs SDPA for the output and, while a `Probe` is active, also
keeps the softmax weights of the asked layers at the asked query rows, differentiably. `output_attentions` would switch
every layer to the eager path and keep all rows.

A model that reads pictures by cross-attention, or has layers without attention weights, says itself what its k-th layer
of attention is. It runs under a probe of its own and fills the one it was `asked` by, with the layers `chosen` for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from arena.errors import ArenaError

NAME = "arena_probe"
_active = threading.local()


@dataclass
class Probe:
    """What to keep: weights of `layers`, at query positions `rows` (long ``(B, R)``), or all rows where None."""

    layers: frozenset[int]
    rows: Tensor | None = None
    weights: dict[int, Tensor] = field(default_factory=dict)
    """By layer: float32 ``(B, heads, R, keys)``, each row a distribution over keys."""


def asked() -> Probe | None:
    """The probe that the enclosing `probing` of this thread fills; None where no layer is asked for."""
    probe = _current()
    return probe if probe is not None and probe.layers else None


def chosen(probe: Probe, layers: Sequence[int], kind: str) -> dict[int, int]:
    """Which of `layers`, the model's layers of a `kind`, each layer that `probe` asks for is.

    Raises `ArenaError` if there are fewer.
    """
    most = max(probe.layers)
    if most >= len(layers):
        raise ArenaError(
            f"attention of {most + 1} layers is asked for, and the model has {len(layers)} layers with {kind}: "
            "lower `layers`"
        )
    return {k: layers[k] for k in sorted(probe.layers)}


def _current() -> Probe | None:
    probe: Probe | None = getattr(_active, "probe", None)
    return probe


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    probe = _current()
    layer = getattr(module, "layer_idx", None)
    if probe is not None and layer in probe.layers:
        probe.weights[layer] = _rows(module, query, key, attention_mask, probe.rows, kwargs.get("scaling"))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _rows(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, rows: Tensor | None, scaling: float | None
) -> Tensor:
    """softmax(q k^T scale + mask) at the query positions `rows`."""
    heads = query.shape[1]
    keys = repeat_kv(key, heads // key.shape[1])
    allowed = mask if mask is not None else torch.ones(query.shape[2], key.shape[2], device=query.device).tril().bool()
    allowed = allowed[..., : key.shape[2]].expand(query.shape[0], 1, -1, -1)
    home = query.device if rows is None else rows.device
    if rows is not None:
        index = rows[:, None, :, None].to(query.device)  # layers may be shared out over several devices
        query = query.gather(2, index.expand(-1, heads, -1, query.shape[-1]))
        allowed = allowed.gather(2, index.expand(-1, 1, -1, allowed.shape[-1]))
    scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if allowed.dtype == torch.bool:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    else:
        scores = scores + allowed
    return scores.float().softmax(-1).to(home)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def probing(language_model: nn.Module, probe: Probe) -> Iterator[Probe]:
    """Fill `probe` by the forward passes of `language_model` inside the block."""
    configs = {id(m.config): cast(PreTrainedConfig, m.config) for m in language_model.modules() if hasattr(m, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        _active.probe = probe
        for config in configs.values():
            config._attn_implementation = NAME
        yield probe
    finally:
        _active.probe = None
        for key, config in configs.items():
            config._attn_implementation = before[key]
