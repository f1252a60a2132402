"""Standard augmentation of a fine-tuner's pictures, drawn anew in every step of training.

Cutout (DeVries 2017, arXiv 1708.04552), mixup (Zhang 2018, arXiv 1710.09412), CutMix (Yun 2019, arXiv 1905.04899) and
TrivialAugment (Mueller 2021, arXiv 2103.10158) are what protections are usually tried against (Huang 2021, arXiv
2101.04898, section 4.3). By default: a shift, colours, and cutout. Nothing is ever mirrored, and hues stay, since
questions ask for left and right and for colours.

Mixup and CutMix make one picture of two, x_i with share s of it and x_j with the rest, and weigh the losses of both
labels by their shares. Here every picture has a question of its own, so only the sample's own is asked of the mixture,
with weight 2s:

    E over s and j of 2 s CE(f(mix(x_i, x_j; s), t_i), y_i),   s ~ Beta(1, 1)

Every sample is also the partner of another, and which part of the picture is whose is drawn evenly: the expectation is
that of the published loss, with one forward pass instead of two.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from kornia import augmentation
from pydantic import AfterValidator, Field
from torch import Tensor

from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from arena.plugins.base import Attack, AttackerWorld, PluginConfig, TrainingHooks
from attacks.training.drawing import drawn, in_order, refuse_smaller

Operation = Literal["shift", "colour", "cutout", "trivial-augment", "mixup", "cutmix"]

SHIFT = 1 / 8
"""Largest shift, as a share of the sides: 4 of 32 pixels in the usual training on CIFAR."""
COLOUR = 0.4
"""How far brightness, contrast and saturation go, of 1: the usual jitter on ImageNet."""
GREY = 0.5
"""What a hole shows: the mean of normalised pictures, as in the paper on cutout."""


def _sensible(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    if len(set(operations)) < len(operations):
        raise ValueError("an operation is named twice")
    if {"mixup", "cutmix"} <= set(operations):
        raise ValueError("mixup and cutmix both mix the pictures of a batch: name one of them")
    return operations


class Augment(Attack):
    """Fine-tuning on pictures that are shifted, recoloured and cut into, or mixed, otherwise in every step."""

    needs = frozenset({"seed"})
    packages = ("kornia",)

    class Config(PluginConfig):
        operations: Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(_sensible)] = Field(
            ("shift", "colour", "cutout"),
            description="what is done, one after the other; of mixup and cutmix at most one",
        )
        hole: float = Field(
            0.25,
            gt=0,
            le=1,
            description="sides of cutout's hole as a share of the picture's; the paper has 1/4 and 1/2",
        )

    config: Config

    def training(self, world: AttackerWorld) -> AugmentHooks:
        return AugmentHooks(self.config.operations, self.config.hole, world.torch_generator())


class AugmentHooks(TrainingHooks):
    """The loss of a batch under augmentation; settings as in `Augment.Config`."""

    def __init__(self, operations: tuple[Operation, ...], hole: float, generator: torch.Generator) -> None:
        self.operations, self.hole = operations, hole
        self.generator = generator
        self.colour = augmentation.ColorJitter(COLOUR, COLOUR, COLOUR)
        self.cutout = augmentation.RandomErasing((hole**2, hole**2), (1.0, 1.0), GREY, p=1.0)
        self.trivial = augmentation.auto.TrivialAugment()

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        images, weights = self.augment(batch.images)
        seen = lvlm.with_images(batch, images)
        if not {"mixup", "cutmix"} & set(self.operations):
            return lvlm.loss(seen)
        # As in plain training over answer tokens; weights are 1 on average.
        losses, tokens = lvlm.losses(seen), (batch.labels != IGNORE).sum(1)
        return (losses * tokens * weights.to(losses)).sum() / tokens.sum()

    def augment(self, images: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
        """One draw for each picture ``(3, H, W)`` in [0, 1], at its size and in that range, and the weight of its
        sample, ``(B,)``. Pictures of one size are mixed with each other."""
        if "trivial-augment" in self.operations:
            refuse_smaller(images, "augment")
        groups = drawn(images, self._one_size, self.generator)
        pictures = in_order([(places, made) for places, (made, _) in groups])
        return pictures, torch.stack(in_order([(places, weights) for places, (_, weights) in groups]))

    def _one_size(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.ones(len(x))
        for operation in self.operations:
            match operation:
                case "shift":
                    x = shifted(x)
                case "colour":
                    x = self.colour(x)
                case "cutout":
                    x = self.cutout(x)
                case "trivial-augment":
                    x = self.trivial(x)
                case "mixup":
                    x, weights = mixed(x)
                case "cutmix":
                    x, weights = cut_and_mixed(x)
        return x.clamp(0, 1), weights


def shifted(x: Tensor) -> Tensor:
    """Pictures ``(B, 3, H, W)``, each shifted by up to an eighth of its sides; edges repeat beyond themselves."""
    height, width = x.shape[-2:]
    tall, wide = round(SHIFT * height), round(SHIFT * width)
    crop = augmentation.RandomCrop((height, width), padding=(wide, tall, wide, tall), padding_mode="replicate")
    moved: Tensor = crop(x)
    return moved


def mixed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup: each picture ``(B, 3, H, W)`` with another, and the weight of its sample, ``(B,)``."""
    partner, share = torch.randperm(len(x)), torch.rand(len(x))
    own = share.to(x)[:, None, None, None]
    return torch.lerp(x[partner.to(x.device)], x, own), _weights(partner, share)


def cut_and_mixed(x: Tensor) -> tuple[Tensor, Tensor]:
    """CutMix: each picture ``(B, 3, H, W)`` with a box of another, or a box of it with the rest of another, and the
    weight of its sample, ``(B,)``. The box has the picture's aspect and may lie partly outside."""
    count, _, height, width = x.shape
    partner, area, centre = torch.randperm(count), torch.rand(count, 1), torch.rand(count, 2)
    inside = torch.ones(count, height, width, dtype=torch.bool)
    for axis, side in ((1, height), (2, width)):
        places = (torch.arange(side) + 0.5) / side
        near = (places - centre[:, axis - 1 : axis]).abs() < area.sqrt() / 2
        inside &= near.unsqueeze(3 - axis)
    own = inside ^ (torch.rand(count, 1, 1) < 0.5)
    made = torch.where(own[:, None].to(x.device), x, x[partner.to(x.device)])
    return made, _weights(partner, own.float().mean((1, 2)))


def _weights(partner: Tensor, share: Tensor) -> Tensor:
    """Twice the shares; 1 for a picture that is its own partner, all of which is its own."""
    return torch.where(partner == torch.arange(len(partner)), torch.ones(()), 2 * share)
