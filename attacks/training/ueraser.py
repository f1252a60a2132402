"""UEraser: training on the worst of several strong augmentations (Qin 2023, arXiv 2303.15127).

    min over theta of E max over k <= K of CE(f_theta(T_k(x), t), y),   T_k drawn from the policy

The policy is plasma brightness, plasma contrast, channel shuffle and TrivialAugment, all kornia's: changes far outside
any imperceptible ball. Probabilities and strengths are those of the authors' code for general use (`ueraser.py`), which
warns that more costs accuracy and may keep training from converging; their notebook for CIFAR-10 has both plasma parts
in every picture (`plasma: 1`). The maximum is taken in the first part of training (60 of 200 epochs in their example);
afterwards each picture is augmented once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from kornia import augmentation
from pydantic import Field
from torch import Tensor, nn

from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.plugins.base import Attack, AttackerWorld, Effort, PluginConfig, TrainingHooks
from attacks.training.drawing import drawn, in_order, refuse_smaller
from attacks.training.inner import at_rest

ROUGHNESS, INTENSITY, SHUFFLE = (0.3, 0.7), (0.5, 1.0), 0.5
"""Of plasma brightness and contrast; of plasma brightness; probability that the colour channels change places."""


class UEraser(Attack):
    """Fine-tuning on the augmentation of highest loss among several draws per sample; later on a single draw."""

    version = "2"
    needs = frozenset({"seed"})
    packages = ("kornia",)

    class Config(PluginConfig):
        draws: int = Field(5, ge=1, description="augmentations tried per sample; the one of highest loss is trained on")
        share: float = Field(0.3, ge=0, le=1, description="first part of training with that choice; then a single draw")
        plasma: float = Field(
            0.5,
            ge=0,
            le=1,
            description="probability of plasma brightness, and of plasma contrast; 1 in the authors' CIFAR-10 notebook",
        )

    config: Config

    def effort(self) -> Effort:
        """The draws without gradient, among which the one of highest loss is chosen, for the share that has several."""
        c = self.config
        return Effort(forwards=c.share * c.draws if c.draws > 1 else 0)

    def training(self, world: AttackerWorld) -> UEraserHooks:
        c = self.config
        return UEraserHooks(c.draws, c.share, c.plasma, world.torch_generator())


class UEraserHooks(TrainingHooks):
    """The loss of a batch under augmentations; `draws`, `share` and `plasma` as in `UEraser.Config`."""

    def __init__(self, draws: int, share: float, plasma: float, generator: torch.Generator) -> None:
        self.draws, self.share = draws, share
        self.generator = generator
        self.policy = nn.Sequential(
            augmentation.RandomPlasmaBrightness(roughness=ROUGHNESS, intensity=INTENSITY, p=plasma),
            augmentation.RandomPlasmaContrast(roughness=ROUGHNESS, p=plasma),
            augmentation.RandomChannelShuffle(p=SHUFFLE),
            augmentation.auto.TrivialAugment(),
        )

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        draws = self.draws if progress < self.share else 1
        candidates = [self.augment(batch.images) for _ in range(draws)]
        return lvlm.loss(lvlm.with_images(batch, worst(lvlm, batch, candidates)))

    def augment(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One draw for each picture ``(3, H, W)`` in [0, 1], at its size and in that range.

        kornia draws TrivialAugment's operation once a call: pictures of one size share it, but not its strength.
        """
        refuse_smaller(images, "ueraser")
        return in_order(drawn(images, lambda stack: self.policy(stack).clamp(0, 1), self.generator))


def worst(lvlm: LVLM, batch: Batch, candidates: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """For each sample the candidate picture of highest loss.

    Chosen without gradient and dropout, in one forward pass a candidate: the gradient of a maximum is that of the draw
    that attains it, so no other draw needs a backward pass.
    """
    if len(candidates) == 1:
        return candidates[0]
    with torch.no_grad(), at_rest(lvlm):
        losses = torch.stack([lvlm.losses(lvlm.with_images(batch, images)) for images in candidates])
    return [candidates[k][i] for i, k in enumerate(losses.argmax(0).tolist())]
