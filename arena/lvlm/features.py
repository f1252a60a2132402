"""What the frozen parts of a model make of pictures, remembered while neither changes: in a training whose vision tower
and projector are frozen, an epoch asks for the same features as the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

KEPT = 2**28
"""Bytes of features that one training remembers; what is beyond is computed each time."""

_LISTS = "deepstack_features"
"""Features besides those at the input, where a family has them: by layer, a tensor a picture."""


@dataclass
class Features:
    """The features of one list of samples by place, once a forward pass has made them; a place is filled only by a
    batch in which no picture is of several parts."""

    of: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    kept: int = 0
    stacked: bool = False
    """Whether the model gives a tensor for all pictures, not one for each."""

    def keep(self, indices: Sequence[int], made: Any) -> None:
        """Remember what `get_image_features` gave for the samples at these places."""
        pictures, layers = made.pooler_output, getattr(made, _LISTS, None) or ()
        self.stacked = isinstance(pictures, Tensor)
        if any(len(each) != len(indices) for each in (pictures, *layers)):
            return
        for at, index in enumerate(indices):
            parts = tuple(each[at].detach() for each in (pictures, *layers))
            size = sum(part.numel() * part.element_size() for part in parts)
            if self.kept + size <= KEPT and index not in self.of:
                self.of[index] = tuple(part.clone() for part in parts)
                self.kept += size


@dataclass(frozen=True)
class Remembered:
    """The part of `Features` that is about a batch: its samples' places, and the pixels it is true of."""

    features: Features
    indices: tuple[int, ...]
    pixels: Tensor

    def about(self, pixels: dict[str, Tensor]) -> bool:
        """Whether it is true of these pixel arguments."""
        return self.pixels is _first(pixels)

    @property
    def complete(self) -> bool:
        """Whether all of them are there."""
        return all(index in self.features.of for index in self.indices)

    @classmethod
    def of(cls, features: Features, indices: Sequence[int], pixels: dict[str, Tensor]) -> Remembered:
        """What is remembered, and will be, of samples at these places, whose pixel arguments are given."""
        return cls(features, tuple(indices), _first(pixels))


def frozen_pictures(lvlm: LVLM) -> bool:
    """Whether a picture has the same features in every step of a training: all that learns is in the language model or
    the output layer, nothing before it is drawn at random, and the model computes features by themselves."""
    inner = _inner(lvlm)
    if not hasattr(inner, "get_image_features") or not hasattr(lvlm.model.get_output_embeddings(), "weight"):
        return False
    language = lvlm.module(lvlm.language_model)
    later = {id(p) for module in (language, lvlm.model.get_output_embeddings()) for p in module.parameters()}
    if any(p.requires_grad and id(p) not in later for p in lvlm.model.parameters()):
        return False
    inside = set(map(id, language.modules()))
    before = [m for m in inner.modules() if id(m) not in inside]
    return not any(_draws(module) for module in before)


def _draws(module: nn.Module) -> bool:
    """Whether a module drops something while it trains."""
    rates = [getattr(module, name, 0.0) for name in ("p", "dropout", "attention_dropout", "drop_prob")]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


@contextmanager
def handed(lvlm: LVLM, parts: Sequence[Remembered]) -> Iterator[None]:
    """For the block, the model takes features of these batches, which are one after the other in what it is given, from
    what is remembered; what is not is computed for each batch by itself, and remembered.

    Raises `Entangled` inside the block where the model's pixels cannot be told apart by batch.
    """
    inner = _inner(lvlm)
    compute = inner.get_image_features

    def get_image_features(*given: Any, **named: Any) -> Any:
        sizes, at, made = [len(part.indices) for part in parts], 0, []
        for part, size in zip(parts, sizes, strict=True):
            if part.complete:
                made.append([part.features.of[index] for index in part.indices])
            else:
                chosen = slice(at, at + size)
                own = (
                    [_rows(x, chosen, sum(sizes)) for x in given],
                    {name: _rows(x, chosen, sum(sizes)) for name, x in named.items()},
                )
                with torch.no_grad():
                    found = compute(*own[0], **own[1])
                part.features.keep(part.indices, found)
                if len(parts) == 1:
                    return found
                lists = (found.pooler_output, *(getattr(found, _LISTS, None) or ()))
                if any(len(each) != size for each in lists):
                    raise Entangled
                made.append([tuple(each[i] for each in lists) for i in range(size)])
            at += size
        return _Made([sample for batch in made for sample in batch], parts[0].features.stacked)

    inner.get_image_features = get_image_features
    try:
        yield
    finally:
        del inner.get_image_features


class Entangled(Exception):
    """The pictures of several batches cannot be told apart by their rows."""


class _Made:
    """Features as models read them."""

    def __init__(self, samples: Sequence[tuple[Tensor, ...]], stacked: bool) -> None:
        pictures = tuple(parts[0] for parts in samples)
        self.pooler_output = torch.stack(pictures) if stacked else pictures
        self.deepstack_features = [tuple(each) for each in zip(*(parts[1:] for parts in samples), strict=True)]

    def to_tuple(self) -> tuple[Any, ...]:
        """Asked of every output by transformers."""
        return self.pooler_output, self.deepstack_features


def _first(pixels: dict[str, Tensor]) -> Tensor:
    """The tensor by which pixel arguments are told from others."""
    return next(iter(pixels.values()))


def _rows(value: Any, chosen: slice, rows: int) -> Any:
    """The rows of a batch, of an argument about several."""
    if not isinstance(value, Tensor) or chosen == slice(0, rows):
        return value
    if len(value) != rows:
        raise Entangled
    return value[chosen]


def _inner(lvlm: LVLM) -> Any:
    """The module that has the vision tower, below the one with the output layer."""
    return lvlm.module(lvlm.vision_tower.rpartition(".")[0])
