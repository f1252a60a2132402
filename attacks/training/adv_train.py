"""Adversarial training: fine-tuning on worst-case pictures (Madry 2018, arXiv 1706.06083).

    min over theta of E max over |delta| <= epsilon of CE(f_theta(x + delta, t), y)

A shortcut that fits into the ball is overwritten by the inner maximisation, so the model must learn from what the ball
cannot hide (against unlearnable examples: Tao 2021, arXiv 2102.04716). Usual radii are 2, 4 and 8/255, with 10 steps of
PGD; the wider the ball, the more of what the model knows must change, and the more steps of training it takes. Recipes
that leave the vision tower frozen can only learn to read its features otherwise: for 4 and 8/255 `full`, or `lora` with
`modules: all`, have more to learn with.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from arena.errors import ArenaError
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import project, sign_descent
from arena.plugins.base import Attack, AttackerWorld, Effort, PluginConfig, TrainingHooks
from attacks.training.inner import at_rest

REACH = 2.5
"""Length of all PGD steps together, in radii: they reach the border from anywhere in the ball, and move along it."""


class AdversarialTraining(Attack):
    """PGD from a random start inside every step of fine-tuning; the step descends on the perturbed pictures alone.

    The maximisation looks at the model without its dropout.
    """

    version = "2"
    needs = frozenset({"seed"})

    class Config(PluginConfig):
        epsilon: float = Field(4.0, gt=0, le=255, description="radius of the L-infinity ball, in 1/255; 2, 4 or 8")
        steps: int = Field(10, ge=1, description="PGD steps per training step; k steps cost k more training steps")
        step: float | None = Field(
            None,
            gt=0,
            le=255,
            description="size of a PGD step, in 1/255; 2.5 epsilon / steps where unset, the rule of Madry 2018",
        )

        @property
        def size(self) -> float:
            """The size of a step, in 1/255."""
            return REACH * self.epsilon / self.steps if self.step is None else self.step

    config: Config

    def effort(self) -> Effort:
        """The PGD steps, at every pass of training."""
        return Effort(gradients=self.config.steps)

    def training(self, world: AttackerWorld) -> AdversarialHooks:
        c = self.config
        return AdversarialHooks(c.epsilon / 255, c.steps, c.size / 255, world.torch_generator())


class AdversarialHooks(TrainingHooks):
    """The loss of a batch at its worst pictures; `epsilon` and `step` in [0, 1] pixel values."""

    def __init__(self, epsilon: float, steps: int, step: float, generator: torch.Generator) -> None:
        self.epsilon, self.steps, self.step = epsilon, steps, step
        self.generator = generator

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> Tensor:
        return lvlm.loss(lvlm.with_images(batch, self.perturb(lvlm, batch)))

    def perturb(self, lvlm: LVLM, batch: Batch) -> list[Tensor]:
        """Pictures ``(3, H, W)`` in [0, 1], each within `epsilon` of the batch's, that raise its loss.

        Pictures do not interact within a batch, so the sign of its losses' gradient is that of each picture's own.
        """
        clean = batch.images
        delta = [self._random_start(x) for x in clean]
        with at_rest(lvlm):
            for _ in range(self.steps):
                images = [(x + d).requires_grad_() for x, d in zip(clean, delta, strict=True)]
                losses = lvlm.forward(lvlm.with_images(batch, images), answers_only=True).losses
                delta = [
                    sign_descent(d, g, x, -self.step, self.epsilon)
                    for d, g, x in zip(delta, _gradients(losses.sum(), images), clean, strict=True)
                ]
        return [x + d for x, d in zip(clean, delta, strict=True)]

    def _random_start(self, clean: Tensor) -> Tensor:
        uniform = 2 * torch.rand(clean.shape, generator=self.generator).to(clean) - 1
        return project(uniform * self.epsilon, clean, self.epsilon)


def _gradients(loss: Tensor, images: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients in the pictures alone: the model's own are neither computed nor touched."""
    found = torch.autograd.grad(loss, images, allow_unused=True) if loss.requires_grad else (None,)
    gradients = tuple(g for g in found if g is not None)
    if len(gradients) < len(images):
        raise ArenaError(
            "adv-train: no gradient reaches the pictures through this model under this recipe; attack it with "
            "`ueraser` or `loss-filter`, which need none, or use a recipe that leaves the vision tower differentiable"
        )
    return gradients
