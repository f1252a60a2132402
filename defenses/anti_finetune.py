"""Noise that raises the loss of fine-tuned models: the objective of Anti-DreamBooth and MetaCloak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.adapters import load_trainable, trainable_state
from arena.lvlm.base import LVLM
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import planes
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.augmentation import SHIFT, shifted
from defenses.claims import noise_lowers_the_loss
from defenses.features import by_other_losses
from defenses.looks import Loss
from defenses.noise import Noise
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import Images, LearnerConfig, Surrogate, optimizer
from mmguard.settings import image_steps


class AntiFinetune(Purifying, ImageDefense):
    """max over delta of E_t CE(f_theta'(t(x + delta)), y), where theta' has learned the clean data for a while, and
    theta, from which it sets out, the protected ones.

    Alternating surrogate and perturbation learning (Anti-DreamBooth: Van Le 2023, arXiv 2303.15433, algorithm 1). In a
    round a copy of each surrogate learns the clean pictures, noise ascends the loss of the copies from where it is, and
    the surrogates themselves learn the pictures as they then are. So noise meets models that know the data and models
    that have met the noise. Rounds and noise steps are as many as in the authors' code, and as long: 0.005 of a range
    of 2. MetaCloak (Liu 2024, arXiv 2311.13127) found such noise to be undone by transforms, and takes its gradient
    through random ones: here through `draws` of them, shifts by up to an eighth of the sides.

    Adapted: both craft against the loss of a diffusion model, this against that of the answer's tokens, of a pretrained
    model with LoRA adapters. The authors' 3 training steps pass over nearly all of their four pictures; here 10 do over
    a few hundred samples. Optimisers begin anew with each turn, as theirs do. Their radius is 0.025 of [0, 1], ours the
    budget's. MetaCloak's other surrogates, of which it takes several stages of training in turn, are not built: of
    several surrogates of the world the losses are added up.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(LearnerConfig):
        rounds: int = setting(50, dry_run=1, ge=1, description="rounds; 50 is the authors'")
        theta_steps: int = setting(10, dry_run=1, ge=1, description="training steps of each surrogate and of its copy")
        pgd_steps: int = setting(6, dry_run=2, ge=1, description="noise steps per round; 6 is the authors'")
        step: float = Field(0.64, gt=0, description="size of a noise step, in 1/255; the authors' 0.005 of [-1, 1]")
        draws: int = Field(1, ge=1, description="draws of the transform per noise step")
        shift: float = setting(
            SHIFT, dry_run=0, ge=0, le=1, description="largest shift of the transform, as a share of the sides"
        )

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: each draw of each noise step, and the minibatches of both trainings."""
        c = self.config
        minibatches = 2 * c.theta_steps * min(c.batch_size, samples) / samples
        return Effort(gradients=c.rounds * (image_steps(c.pgd_steps, c) * c.draws + minibatches))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, generator = self.config, world.torch_generator()
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        torch.manual_seed(world.seed)
        surrogates = [Surrogate.start(lvlm, samples, c) for lvlm in world.surrogates()]
        met = self._met(surrogates, world.seed)
        order = shuffled(len(samples), c.batch_size, world.rng())

        def clean(indices: Sequence[int]) -> list[Tensor]:
            return [planes(samples[i].image) for i in indices]

        def transformed(images: list[Tensor], loss: Loss) -> list[Tensor]:
            return [shifted(x, c.shift, generator) for x in images]

        def learn(shown: Images) -> float:
            """Train all surrogates for a turn, with optimisers of their own; returns the last loss."""
            fresh = [replace(s, optimizer=optimizer(s.lvlm, c)) for s in surrogates]
            losses = [0.0]
            for _ in range(c.theta_steps):
                part = next(order)
                losses = [s.train_step(part, shown) for s in fresh]
            return max(losses)

        for number in range(c.rounds):
            kept = [trainable_state(s.lvlm) for s in surrogates]
            learn(clean)
            looks, steps = [transformed] * c.draws, [-c.step / 255] * c.pgd_steps
            noise.descend(met, steps, c, looks, turn=number * c.pgd_steps)
            for surrogate, before in zip(surrogates, kept, strict=True):
                load_trainable(surrogate.lvlm, before)
            loss = learn(noise.shown)
            world.progress((number + 1) / c.rounds, f"loss {loss:.3f}")
        return noise.released()

    def _met(self, surrogates: Sequence[Surrogate], seed: int) -> Sequence[Surrogate]:
        """What noise ascends the losses of: the surrogates, with the weights that they then have."""
        return surrogates

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The surrogates' loss is higher than on the original pictures, and than with random signs of the same noise;
        what is compared is that loss negated."""

        def negated(lvlm: LVLM) -> LVLM:
            def losses(batch: Batch, numbers: Sequence[int]) -> Tensor:
                return -lvlm.losses(batch)

            return by_other_losses(lvlm, samples, losses, self.config.batch_size).lvlm

        return noise_lowers_the_loss(samples, released, world, samples, [negated(x) for x in world.surrogates()])
