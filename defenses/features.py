"""What the language model of a surrogate reads of a picture: the features that its vision tower and projector make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from arena.data.sample import Sample
from arena.lvlm.base import LVLM, kept_positions
from arena.lvlm.batch import Batch, Forward
from arena.lvlm.shortcuts import answer_rows, at_rows
from defenses.surrogate import Surrogate

Losses = Callable[[Batch, Sequence[int]], Tensor]
"""A loss of each sample, ``(B,)``, with gradient to ``batch.images``: from a batch and the numbers of its samples."""


PLAIN = Sample("", Image.new("RGB", (1, 1)), "?", "a")
"""What stands for the texts of a picture that has none: features do not depend on them."""


class _Reached(Exception):
    """The language model was about to run."""


def features(lvlm: LVLM, batch: Batch) -> Tensor:
    """The features of a batch's pictures one after the other, float32 ``(tokens of all, d)``, with gradient.

    They are the outputs of the family's projector; where it has several modules, such as DeepStack's, those of all of
    them side by side. The language model does not run.
    """
    modules = _modules(lvlm.module(lvlm.projector))
    made: list[list[Tensor]] = [[] for _ in modules]

    def stop(module: nn.Module, args: Any) -> None:
        raise _Reached

    hooks = [
        lvlm.module(lvlm.language_model).register_forward_pre_hook(stop),
        *(module.register_forward_hook(partial(_keep, kept)) for module, kept in zip(modules, made, strict=True)),
    ]
    try:
        lvlm.call(batch, 1)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([torch.cat([x.reshape(-1, x.shape[-1]) for x in kept]) for kept in made], 1).float()


def mean_features(lvlm: LVLM, batch: Batch, tokens: dict[tuple[int, int], int]) -> Tensor:
    """The mean of each picture's features, float32 ``(B, d)``, with gradient.

    `tokens` remembers how many features pictures of a size (height, width) have; sizes that it lacks are found out.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in batch.images]
    for size in {*sizes} - tokens.keys():
        with torch.no_grad():
            grey = torch.full((3, *size), 0.5, device=lvlm.device)
            tokens[size] = len(features(lvlm, lvlm.encode([PLAIN], [grey])))
    return torch.stack([x.mean(0) for x in features(lvlm, batch).split([tokens[size] for size in sizes])])


def _modules(module: nn.Module) -> list[nn.Module]:
    """The modules that are called, of one or a list of them."""
    return [one for each in module for one in _modules(each)] if isinstance(module, nn.ModuleList) else [module]


def _keep(kept: list[Tensor], module: nn.Module, args: Any, output: Tensor | list[Tensor]) -> None:
    kept.extend([output] if isinstance(output, Tensor) else output)  # a family makes a list, one a view


def answer_features(lvlm: LVLM, batch: Batch) -> Tensor:
    """What the output layer reads where it predicts the first token of each sample's answer, float32 ``(B, d)``, with
    gradient: what a classifier's last layer is to its classes."""
    rows = answer_rows(batch.labels)
    kept: list[Tensor] = []
    with at_rows(lvlm, rows & (rows.cumsum(1) == 1)):
        hook = lvlm.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: kept.append(args[0]))
        try:
            lvlm.call(batch, kept_positions(batch))
        finally:
            hook.remove()
    return kept[0].float()


def by_other_losses(lvlm: LVLM, samples: Sequence[Sample], losses: Losses, batch_size: int) -> Surrogate:
    """A surrogate that learns nothing, led by other losses, see `led_by`."""
    lvlm.model.requires_grad_(False)
    return led_by(Surrogate(lvlm, samples, torch.optim.SGD(lvlm.model.parameters()), batch_size), losses)


def led_by(surrogate: Surrogate, losses: Losses) -> Surrogate:
    """The surrogate with other losses in the place of those of the samples' answers, and the same weights, also when
    they change.

    It is what noise descends on, and claims are tested on, where a method does not go by answers. Its model takes no
    other samples than the surrogate's, which it knows by their ids, and computes nothing but losses.
    """
    numbers = {sample.id: number for number, sample in enumerate(surrogate.samples)}
    lvlm = surrogate.lvlm
    bound = copy.copy(lvlm)

    def encode(given: Sequence[Sample], images: Sequence[Tensor] | None = None) -> Batch:
        batch = lvlm.encode(given, images)
        return replace(batch, indices=torch.tensor([numbers[sample.id] for sample in given]))

    def forward(batch: Batch, **kept: Any) -> Forward:
        values = losses(batch, batch.indices.tolist())
        return Forward(values, values.new_empty(0), batch.labels)

    bound.encode, bound.forward = encode, forward  # type: ignore[method-assign, assignment]
    return replace(surrogate, lvlm=bound)
