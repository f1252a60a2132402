"""MiniCPM-V's language model as the arena needs it: one whose layers mostly carry a state instead of keys and values
(gated delta rule, Yang 2024, arXiv 2412.06464), as in Qwen3.5, with a full-attention layer now and then.

Only full attention has weights over positions, so the k-th layer of attention is the k-th full-attention layer.

Whoever continues a sequence hands keys and values over by layer. A state layer hands over its two states in their
place: the last inputs of its convolution and its memory. Both must be those after the last token of each sequence. So
the beginnings of sequences run with their padding in front, where it leaves no trace, and what they give is put back
to where the tokens were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, MiniCPMV4_6ForConditionalGeneration
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg

from arena.lvlm.families import patch_lists
from arena.lvlm.probe import Probe, asked, chosen, probing

BLOCK = 4
"""Side in patches of an image token: two merges of 2 x 2."""


@dataclass(frozen=True)
class Turn:
    """Right-padded sequences ``(B, L)`` turned so that padding comes first: long ``(B, L)``, for each place there the
    place here and for each place here the place there."""

    taken: Tensor
    given: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Turn:
        padding = mask.shape[1] - (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1, keepdim=True)
        places = torch.arange(mask.shape[1], device=mask.device)
        return cls((places - padding) % mask.shape[1], (places + padding) % mask.shape[1])


class HybridMiniCPMV(MiniCPMV4_6ForConditionalGeneration):
    """The model with our pixel arguments, logits of the last positions only, sequences that can be continued, and
    attention by full-attention layer."""

    @deprecate_kwarg("past_key_values", version="5.40.0", new_name="cache")  # type: ignore[untyped-decorator]
    @wraps(MiniCPMV4_6ForConditionalGeneration.forward)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        target_sizes: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        if pixel_values is not None and target_sizes is not None and pixel_values.ndim == 3:
            pixel_values, target_sizes = packed(pixel_values, target_sizes, self.config.patch_size)
        turn = None
        if use_cache and cache is None and input_ids is not None and attention_mask is not None:
            turn = Turn.of(attention_mask)
            input_ids, attention_mask = input_ids.gather(1, turn.taken), attention_mask.gather(1, turn.taken)
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        with self._probed(turn):
            output = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                pixel_values=pixel_values,
                target_sizes=target_sizes,
                position_ids=position_ids,
                cache=self._with_states(cache),
                use_cache=use_cache,
                **others,
            )
        if turn is not None:
            self._hand_over(output.cache, turn)
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, cache=output.cache)

    def generate(self, *, pixel_values: Tensor, target_sizes: Tensor, **inputs: Any) -> Any:
        """As transformers', which runs the vision tower before the first forward pass."""
        strip, sizes = packed(pixel_values, target_sizes, self.config.patch_size)
        parent: Any = super()
        return parent.generate(pixel_values=strip, target_sizes=sizes, **inputs)

    @property
    def _text_config(self) -> Any:
        return self.config.text_config

    @property
    def _kinds(self) -> Sequence[str]:
        kinds: Sequence[str] = self._text_config.layer_types
        return kinds

    @contextmanager
    def _probed(self, turn: Turn | None) -> Iterator[None]:
        """Fill the probe that is asked for by one of the full-attention layers."""
        outer = asked()
        if outer is None:
            yield
            return
        layers = chosen(outer, [i for i, kind in enumerate(self._kinds) if kind == "full_attention"], "full attention")
        rows = outer.rows
        if turn is not None:
            rows = turn.given if rows is None else turn.given.gather(1, rows)
        inner = Probe(frozenset(layers.values()), rows)
        with probing(self.model.language_model, inner):
            yield
        for k, layer in layers.items():
            weights = inner.weights[layer]
            if turn is not None:
                weights = weights.gather(3, turn.given[:, None, None].expand(*weights.shape[:3], -1))
            outer.weights[k] = weights

    def _with_states(self, cache: Any) -> Any:
        """A cache that was put together from keys and values, with states where they stand for such."""
        if cache is None or not isinstance(cache.layers[self._kinds.index("linear_attention")], DynamicLayer):
            return cache
        own = DynamicCache(config=self._text_config)
        for i, (kind, layer) in enumerate(zip(self._kinds, cache.layers, strict=True)):
            if kind == "full_attention":
                own.update(layer.keys, layer.values, i)
            else:
                own.update_conv_state(layer.keys, i)
                own.update_recurrent_state(layer.values, i)
        return own

    def _hand_over(self, cache: Any, turn: Turn) -> None:
        """Give every layer of a cache `keys` and `values`, those of full attention where the tokens were."""
        for kind, layer in zip(self._kinds, cache.layers, strict=True):
            if kind == "full_attention":
                index = turn.given[:, None, :, None]
                layer.keys = layer.keys.gather(2, index.expand_as(layer.keys))
                layer.values = layer.values.gather(2, index.expand_as(layer.values))
            else:
                layer.keys, layer.values = layer.conv_states[0], layer.recurrent_states[0]


def blocks(x: Tensor, patch: int) -> Tensor:
    """Pictures ``(n, 3, H, W)`` as patches ``(n, patches, 3 patch patch)``, those of an image token one after the
    other."""
    x = x.unflatten(3, (-1, BLOCK, patch)).unflatten(2, (-1, BLOCK, patch))
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(5).flatten(1, 4)


def packed(rows: Tensor, sizes: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Patches of pictures as in `patch_lists`, in the order of `blocks`, with the sizes of their slices in patches,
    int ``(B, most slices, 2)``, zero where there is none, as transformers' model takes them: one strip of patches
    ``(1, 3, patch, width)`` and sizes ``(slices, 2)``."""
    strips = []
    for picture, slices in zip(patch_lists.unpad(rows), sizes.tolist(), strict=True):
        counts = [height * width for height, width in slices]
        for part, (_, width) in zip(picture.split(counts), slices, strict=True):
            if width:
                across = part.view(-1, width // BLOCK, BLOCK, BLOCK, part.shape[1]).transpose(1, 2)
                strips.append(across.reshape(-1, 3, patch, patch))
    strip = torch.cat(strips).permute(1, 2, 0, 3).flatten(2)
    flat = sizes.flatten(0, 1)
    return strip[None], flat[flat[:, 0] > 0]
