"""Llama-3.2-Vision's pictures as positions of its sequence.

There a picture is one token of the text, which stands for nothing, and its features are the keys of the
cross-attention layers, of every tile its class token and its patches. So that trigger and answer have image positions
to attend to, a sequence here has after that token one place for each such key. `CrossMllama` takes the places out
before the model runs and puts them back into what it gives: embeddings, logits and attention are those of the sequence
with places, and so a sequence is continued like that of any other model.

Attention binding needs both kinds of attention: a query reads the picture in a cross-attention layer, and what other
text has read of it in the self-attention that follows. So the k-th layer of attention is the k-th cross-attention layer
together with the first self-attention layer after it. Each gives a query one unit of attention, and neither competes
with the other in a softmax. A row holds half of either, hence sums to 1: half on the picture's keys, half on the text.
Against a joint softmax `l_mass` towards image tokens or towards the trigger is never below log 2, a constant without
gradient. That the distances of Theorem 5.1 are of distributions stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MllamaForConditionalGeneration
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg

from arena.errors import ArenaError
from arena.lvlm.probe import Probe, asked, chosen, probing


@dataclass(frozen=True)
class Layout:
    """Where the keys of a picture have their places, by sequence, long ``(B, 1)``: after the token at `start`, `count`
    of them."""

    start: Tensor
    count: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, image_token_id: int) -> Layout:
        image = input_ids == image_token_id
        return cls(image.int().argmax(1, keepdim=True), image.sum(1, keepdim=True) - 1)

    def token(self, places: Tensor) -> Tensor:
        """The tokens at `places` ``(B, R)``; the picture's token for places of its keys."""
        return places.where(places <= self.start, (places - self.count).maximum(self.start))

    def place(self, tokens: Tensor) -> Tensor:
        """The places of `tokens` ``(B, R)``."""
        return tokens.where(tokens <= self.start, tokens + self.count)

    def keys(self, places: int, tokens: int, ending: int) -> Tensor:
        """For each of the `places` and of an `ending` after them, where its key is among `tokens` and the ending, to
        which the picture's own keys are appended: long ``(B, places + ending)``."""
        here = torch.arange(places, device=self.start.device)
        after = here - self.start - 1
        of_picture = (after >= 0) & (after < self.count)
        index = torch.where(of_picture, tokens + ending + after, self.token(here[None]))
        behind = torch.arange(tokens, tokens + ending, device=self.start.device)
        return torch.cat([index, behind.expand(len(index), -1)], 1)


class CrossMllama(MllamaForConditionalGeneration):
    """The model with our pixel arguments and sequences that have places for the picture's keys."""

    @deprecate_kwarg("past_key_values", version="5.40.0", new_name="cache")  # type: ignore[untyped-decorator]
    @wraps(MllamaForConditionalGeneration.forward)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_mask: Tensor | None = None,
        cache: Any = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> Any:
        if input_ids is None or attention_mask is None or cross_attention_mask is not None:
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                cross_attention_mask=cross_attention_mask,
                cache=cache,
                logits_to_keep=logits_to_keep,
                **others,
            )
        if cache is None:
            return self._whole(input_ids, attention_mask, logits_to_keep, **others)
        return self._ending(input_ids, attention_mask, cache, logits_to_keep, **others)

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, **inputs: Any) -> Tensor:
        """As transformers', from left-padded sequences with places."""
        layout = Layout.of(input_ids, self.config.image_token_id)
        length = input_ids.shape[1]
        most = length - int(layout.count.min())
        tokens = torch.arange(length - most, length, device=input_ids.device) - layout.count
        taken = layout.place(tokens.clamp(min=0))
        ids, mask = input_ids.gather(1, taken), attention_mask.gather(1, taken) * (tokens >= 0)
        parent: Any = super()
        output = parent.generate(
            input_ids=ids,
            attention_mask=mask,
            cross_attention_mask=self._tiles_seen(layout, tokens),
            pixel_values=self._tiles(pixel_values),
            **inputs,
        )
        return torch.cat([input_ids, output[:, most:]], 1)

    @property
    def keys_of_a_tile(self) -> int:
        return int(self.model.vision_model.num_patches)

    def _whole(
        self, input_ids: Tensor, attention_mask: Tensor, keep: int, pixel_values: Tensor, **others: Any
    ) -> CausalLMOutputWithPast:
        """Right-padded sequences from their beginning."""
        layout = Layout.of(input_ids, self.config.image_token_id)
        length = input_ids.shape[1]
        tokens = torch.arange(length - int(layout.count.min()), device=input_ids.device).expand(len(input_ids), -1)
        taken = layout.place(tokens)
        inside = taken < length
        taken = taken.clamp(max=length - 1)
        embeddings = self.get_input_embeddings()(input_ids)
        embeddings = embeddings.gather(1, taken[..., None].expand(-1, -1, embeddings.shape[-1]))
        keys = layout.keys(length, tokens.shape[1], 0)
        with self._probed(keys, lambda rows: layout.token(_all(length, layout) if rows is None else rows)):
            output = self.model(
                inputs_embeds=embeddings,
                attention_mask=attention_mask.gather(1, taken) * inside,
                cross_attention_mask=self._tiles_seen(layout, tokens),
                pixel_values=self._tiles(pixel_values),
                **others,
            )
        hidden = output.last_hidden_state
        rows = layout.token(_all(length, layout)[:, -keep:])
        logits = self.lm_head(hidden.gather(1, rows[..., None].expand(-1, -1, hidden.shape[-1])))
        if output.cache is not None:
            note = DynamicLayer()
            note.update(*[torch.cat([layout.start, layout.count], 1)[:, None, None]] * 2)
            output.cache.layers.append(note)
        return CausalLMOutputWithPast(logits=logits, cache=output.cache)

    def _ending(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, keep: int, position_ids: Tensor, **others: Any
    ) -> CausalLMOutputWithPast:
        """Right-padded endings of what `_whole` has run, from its cache with the layout that it noted there."""
        layout = Layout(*cache.layers.pop().keys[:, 0, 0].split(1, 1))
        ending = input_ids.shape[1]
        places = attention_mask.shape[1] - ending
        text = next(i for i in range(len(cache.layers)) if i not in self._cross_attention)
        tokens = int(cache.layers[text].keys.shape[2])
        lengths = attention_mask[:, :places].sum(1, keepdim=True) - layout.count
        before = (torch.arange(tokens, device=input_ids.device) < lengths).to(attention_mask)
        positions = position_ids - layout.count
        with self._probed(layout.keys(places, tokens, ending), lambda rows: rows):
            output = self.model(
                input_ids=input_ids,
                attention_mask=torch.cat([before, attention_mask[:, places:]], 1),
                cross_attention_mask=self._tiles_seen(layout, positions),
                position_ids=positions,
                cache=cache,
                **others,
            )
        logits = self.lm_head(output.last_hidden_state[:, -keep:])
        return CausalLMOutputWithPast(logits=logits, cache=output.cache)

    @property
    def _text_config(self) -> Any:
        return self.config.text_config

    @property
    def _most_tiles(self) -> int:
        vision: Any = self.config.vision_config
        return int(vision.max_num_tiles)

    @property
    def _cross_attention(self) -> list[int]:
        layers: list[int] = self._text_config.cross_attention_layers
        return layers

    @contextmanager
    def _probed(self, keys: Tensor, tokens: Callable[[Tensor | None], Tensor | None]) -> Iterator[None]:
        """Fill the probe that is asked for: cross- and self-attention of the `tokens` at its rows, put to the places
        that `keys` gives."""
        outer = asked()
        if outer is None:
            yield
            return
        crossing = chosen(outer, self._cross_attention, "cross-attention")
        following = {k: self._self_attention_after(layer) for k, layer in crossing.items()}
        inner = Probe(frozenset([*crossing.values(), *following.values()]), tokens(outer.rows))
        with probing(self.model.language_model, inner):
            yield
        for k, layer in crossing.items():
            weights = torch.cat([inner.weights[following[k]], inner.weights[layer]], 3) / 2
            outer.weights[k] = weights.gather(3, keys[:, None, None].expand(*weights.shape[:3], -1))

    def _self_attention_after(self, layer: int) -> int:
        depth = self._text_config.num_hidden_layers
        found = next((i for i in range(layer + 1, depth) if i not in self._cross_attention), None)
        if found is None:
            raise ArenaError(
                f"attention: layer {layer} reads the picture and no layer after it reads the text: lower `layers`"
            )
        return found

    def _tiles_seen(self, layout: Layout, tokens: Tensor) -> Tensor:
        """Which tiles each of `tokens` ``(B, R)`` attends to, ``(B, R, 1, tiles)``: from the picture's token on, all
        that the picture has."""
        tiles = torch.arange(self._most_tiles, device=tokens.device)
        has = tiles < layout.count // self.keys_of_a_tile
        return ((tokens >= layout.start)[..., None] & has[:, None]).long()[:, :, None]

    def _tiles(self, pixel_values: Tensor) -> Tensor:
        """Tiles ``(B, most tiles, 3, H, W)``, NaN where a picture has none, as transformers' model takes them: one
        picture a sequence, the number of tiles the model's, zero where there is none."""
        missing = self._most_tiles - pixel_values.shape[1]
        return F.pad(pixel_values.nan_to_num(), (0, 0) * 3 + (0, missing))[:, None]


def _all(length: int, layout: Layout) -> Tensor:
    return torch.arange(length, device=layout.start.device).expand(len(layout.start), -1)
