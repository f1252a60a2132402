"""A surrogate that learns from the protected samples while they are crafted, as EM and MEM have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from arena.data.sample import Sample
from arena.lvlm.adapters import attach_lora, linear_modules, trainable
from arena.lvlm.base import LVLM
from arena.lvlm.batch import IGNORE, Batch
from arena.lvlm.perturbation import as_rgb, batches, check_finite, pieces, planes
from arena.plugins.base import DefenderWorld, PluginConfig, setting
from defenses.perturbations import shuffled
from mmguard.settings import Pictures


class LearnerConfig(PluginConfig, Pictures):
    """How the defender's surrogate learns."""

    rank: int = setting(16, dry_run=2, ge=1, description="rank of the surrogate's LoRA adapters")
    learning_rate: float = Field(2e-3, gt=0, description="of the surrogate's adapters (AdamW)")
    batch_size: int = setting(32, dry_run=8, ge=1, description="samples per step, for the surrogate and for the noise")


class SurrogateConfig(LearnerConfig):
    """How the surrogate learns between perturbation steps, and how perturbations move."""

    theta_steps: int = setting(
        10, dry_run=1, ge=1, description="training steps of the surrogate per round; 10 is the paper's"
    )
    pgd_steps: int = setting(20, dry_run=1, ge=1, description="noise steps per round")
    step: float = Field(0.8, gt=0, description="size of a noise step, in 1/255")
    stop_error: float = Field(
        0.01, ge=0, le=1, description="stop when the surrogate errs less than this on the protected data"
    )
    rounds: int = setting(12, dry_run=1, ge=1, description="most rounds")


Images = Callable[[Sequence[int]], Sequence[Tensor]]
"""The pictures of some samples as they are now, float planes in [0, 1]."""


def optimizer(lvlm: LVLM, config: LearnerConfig) -> torch.optim.Optimizer:
    """A fresh one of what learns in a model."""
    return torch.optim.AdamW(trainable(lvlm).values(), lr=config.learning_rate, weight_decay=0.0)


@dataclass
class Surrogate:
    """One surrogate being trained on the protected samples, and their encodings in batches."""

    lvlm: LVLM
    samples: Sequence[Sample]
    optimizer: torch.optim.Optimizer
    batch_size: int

    @classmethod
    def start(cls, lvlm: LVLM, samples: Sequence[Sample], config: LearnerConfig) -> Surrogate:
        tuned = attach_lora(lvlm, config.rank, 2 * config.rank, 0.0, linear_modules(lvlm, lvlm.language_model))
        tuned.model.train()
        return cls(tuned, samples, optimizer(tuned, config), config.batch_size)

    def encode(
        self,
        indices: Sequence[int],
        images: Sequence[Tensor],
        questions: Callable[[Sequence[Sample]], list[Sample]] = list,
    ) -> Batch:
        """Some samples with other pictures, and the questions that `questions` gives them."""
        seen = {id(x): as_rgb(x).to(self.lvlm.device) for x in images}  # a picture of several samples stays one tensor
        return self.lvlm.encode(questions([self.samples[i] for i in indices]), [seen[id(x)] for x in images])

    def train_step(self, indices: Sequence[int], images: Images) -> float:
        """One step of the adapters on the pictures that `images` gives of some samples; returns the loss.

        Large pictures come in several pieces, whose gradients are added up by their share of the samples. Raises
        `ArenaError` if the loss is no number.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in pieces(indices, self.samples):
            loss = self.lvlm.loss(self.encode(part, images(part)))
            check_finite("the surrogate's loss", [loss])
            (loss if len(part) == len(indices) else loss * (len(part) / len(indices))).backward()
            total += loss.item() * len(part)
        self.optimizer.step()
        return total / len(indices)

    @torch.no_grad()
    def errors(self, images: Images) -> float:
        """Share of samples with a wrong most likely answer token; `images` gives the pictures of some of them."""
        wrong = 0
        for many in batches(len(self.samples), 4 * self.batch_size):
            for part in pieces(many, self.samples):
                out = self.lvlm.forward(self.encode(part, images(part)))
                right = ((out.logits.argmax(-1) == out.labels) | (out.labels == IGNORE)).all(1)
                wrong += int((~right).sum())
        return wrong / len(self.samples)


def trained(samples: Sequence[Sample], world: DefenderWorld, config: LearnerConfig, steps: int) -> list[Surrogate]:
    """Fresh surrogates after so many training steps on the samples as they are, in evaluation mode from then on."""

    def clean(indices: Sequence[int]) -> list[Tensor]:
        return [planes(samples[i].image) for i in indices]

    torch.manual_seed(world.seed)
    surrogates = [Surrogate.start(lvlm, samples, config) for lvlm in world.surrogates()]
    order = shuffled(len(samples), config.batch_size, world.rng())
    for _ in range(steps):
        part = next(order)
        for surrogate in surrogates:
            surrogate.train_step(part, clean)
    for surrogate in surrogates:
        surrogate.lvlm.model.eval()
        surrogate.lvlm.model.requires_grad_(False)
    world.diagnostics |= {"surrogate_error": max(s.errors(clean) for s in surrogates)}
    return surrogates
