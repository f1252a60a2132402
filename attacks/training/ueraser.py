"""UEraser: training on the worst of several strong augmentations (Qin 2023, arXiv 2303.15127).

    min over theta of E max over k <= K of CE(f_theta(T_k(x), t), y),   T_k drawn from the policy

The policy is plasma brightness, plasma contrast, channel shuffle and TrivialAugment, all kornia's: changes far outside
any imperceptible ball. The maximum is taken in the first part of training (60 of 200 epochs in the authors' example);
afterwards each picture is augmented once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from kornia import augmentation
from pydantic import Field
from torch import Tensor, nn

from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.pixels import by_size
from arena.plugins.base import Attack, AttackerWorld, Effort, PluginConfig, TrainingHooks

SMALLEST = 3
"""Pixels along a side that kornia's sharpness filter needs."""


class UEraser(Attack):
    """Fine-tuning on the augmentation of highest loss among several draws per sample; later on a single draw."""

    needs = frozenset({"seed"})
    packages = ("kornia",)

    class Config(PluginConfig):
        draws: int = Field(5, ge=1, description="augmentations tried per sample; the one of highest loss is trained on")
        share: float = Field(0.3, ge=0, le=1, description="first part of training with that choice; then a single draw")

    config: Config

    def effort(self) -> Effort:
        """The draws without gradient, among which the one of highest loss is chosen, for the share that has several."""
        c = self.config
        return Effort(forwards=c.share * c.draws if c.draws > 1 else 0)

    def training(self, world: AttackerWorld) -> UEraserHooks:
        return UEraserHooks(self.config.draws, self.config.share, world.torch_generator())


class UEraserHooks(TrainingHooks):
    """The loss of a batch under augmentations; `draws` and `share` as in `UEraser.Config`."""

    def __init__(self, draws: int, share: float, generator: torch.Generator) -> None:
        self.draws, self.share = draws, share
        self.generator = generator
        self.policy = nn.Sequential(
            augmentation.RandomPlasmaBrightness(p=1.0),
            augmentation.RandomPlasmaContrast(p=1.0),
            augmentation.RandomChannelShuffle(p=0.5),
            augmentation.auto.TrivialAugment(),
        )

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        draws = self.draws if progress < self.share else 1
        candidates = [self.augment(batch.images) for _ in range(draws)]
        return lvlm.loss(lvlm.with_images(batch, worst(lvlm, batch, candidates)))

    @torch.no_grad()
    def augment(self, images: Sequence[Tensor]) -> list[Tensor]:
        """One draw for each picture ``(3, H, W)`` in [0, 1], at its size and in that range.

        kornia draws TrivialAugment's operation once a call: pictures of one size share it, but not its strength.
        """
        augmented: dict[int, Tensor] = {}
        for places, stack in by_size(images):
            if min(stack.shape[-2:]) < SMALLEST:
                height, width = stack.shape[-2:]
                raise ArenaError(
                    f"ueraser: a picture of {width} x {height} pixels cannot be augmented: "
                    f"remove pictures below {SMALLEST} pixels a side from the training set"
                )
            with torch.random.fork_rng(devices=[]):  # kornia draws from the global CPU generator
                seed = torch.randint(2**63 - 1, (), generator=self.generator)
                torch.default_generator.manual_seed(int(seed))
                changed = self.policy(stack).clamp(0, 1)
            augmented.update(zip(places, changed, strict=True))
        return [augmented[i] for i in range(len(images))]


def worst(lvlm: LVLM, batch: Batch, candidates: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """For each sample the candidate picture of highest loss.

    Chosen without gradient, in one forward pass a candidate: the gradient of a maximum is that of the draw that attains
    it, so no other draw needs a backward pass.
    """
    if len(candidates) == 1:
        return candidates[0]
    with torch.no_grad():
        losses = torch.stack([lvlm.losses(lvlm.with_images(batch, images)) for images in candidates])
    torch.clear_autocast_cache()  # under autocast it holds casts without gradient, which training would then use
    return [candidates[k][i] for i, k in enumerate(losses.argmax(0).tolist())]
