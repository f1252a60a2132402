"""REM: robust error-minimising noise (Fu 2022, arXiv 2203.14533), which adversarial training does not undo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.perturbation import as_rgb, project, sign_descent
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.augmentation import SHIFT, shifted
from defenses.claims import noise_lowers_the_loss
from defenses.looks import Loss
from defenses.noise import Noise
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import LearnerConfig, Surrogate
from mmguard.settings import image_steps


class RobustErrorMinimizing(Purifying, ImageDefense):
    """min_theta min_du max_da E_t CE(f_theta(t(x + du) + da), y), where da has a smaller radius than du.

    Rounds of `theta_steps` steps of adversarial training of a LoRA surrogate on the protected data, and of noise that
    is made anew from a uniform start: each step descends on the gradients of 5 draws of augmentation t, each at a da of
    its own, which ascends from a uniform start. Sizes and numbers of steps are those of the authors' code at 8/255.

    Adapted: the label is the answer, the loss that of its tokens, and the model a pretrained one with LoRA adapters.
    The augmentation t shifts pictures by up to an eighth of their sides; other than the authors' it mirrors none, since
    questions ask for left and right. The authors train for 5,000 steps and make the noise of a minibatch anew before
    each. Here the noise of all samples is made once a round, by 550 gradients a sample, as their code does once at the
    end, and there are few rounds, as data and adapters are small. da's radius is a share of the budget's, so that it
    stays the smaller one. Several surrogates are descended on together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})

    class Config(LearnerConfig):
        rounds: int = setting(4, dry_run=1, ge=1, description="rounds of training and of noise")
        theta_steps: int = setting(20, dry_run=1, ge=1, description="steps of adversarial training per round")
        pgd_steps: int = setting(10, dry_run=1, ge=1, description="noise steps per round; 10 is the authors', as below")
        step: float = Field(1.6, gt=0, description="size of a noise step, in 1/255")
        draws: int = setting(5, dry_run=1, ge=1, description="draws of augmentation and da per noise step")
        shift: float = setting(
            SHIFT, dry_run=0, ge=0, le=1, description="largest shift of the augmentation, as a share of the sides"
        )
        inner_radius: float = Field(0.5, gt=0, lt=1, description="radius of da, as a share of the budget's: 4 of 8/255")
        inner_steps: int = setting(10, dry_run=1, ge=1, description="steps of da")
        inner_step: float = Field(0.8, gt=0, description="size of a step of da, in 1/255")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: each draw of each noise step, and minibatches of adversarial training."""
        c = self.config
        minibatches = c.theta_steps * min(c.batch_size, samples) / samples
        noise = image_steps(c.pgd_steps, c) * c.draws * self._gradients_a_draw()
        return Effort(gradients=c.rounds * (noise + minibatches * (c.inner_steps + 1)))

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, rng, generator = self.config, world.rng(), world.torch_generator()
        noise = Noise(samples, world.budget.epsilon, c.batch_size, c.copies == "near")
        torch.manual_seed(world.seed)
        surrogates = [Surrogate.start(lvlm, samples, c) for lvlm in world.surrogates()]
        radius, order = c.inner_radius * world.budget.epsilon, shuffled(len(samples), c.batch_size, rng)

        def crafted(images: list[Tensor], loss: Loss) -> list[Tensor]:
            return self._disturbed([shifted(x, c.shift, generator) for x in images], loss, radius, generator)

        for number in range(c.rounds):
            losses = []
            for _ in range(c.theta_steps):
                part = next(order)
                losses += [self._train_step(s, part, noise, radius, generator) for s in surrogates]
            noise.start(lambda shape: 2 * torch.rand(shape, generator=generator) - 1)
            noise.descend(surrogates, [c.step / 255] * c.pgd_steps, c, [crafted] * c.draws, turn=number * c.pgd_steps)
            world.progress((number + 1) / c.rounds, f"loss {sum(losses) / len(losses):.3f}")
        return noise.released()

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Under da the surrogates' loss is lower than on the original pictures under theirs, and than with random signs
        of the same noise."""
        radius, generator = self.config.inner_radius * world.budget.epsilon, world.torch_generator()

        def look(images: list[Tensor], loss: Loss) -> list[Tensor]:
            return self._disturbed(images, loss, radius, generator)

        return noise_lowers_the_loss(samples, released, world, samples, look=look)

    def _gradients_a_draw(self) -> int:
        """Passes with a gradient for one draw of a noise step."""
        return self.config.inner_steps + 1

    def _disturbed(self, images: list[Tensor], loss: Loss, radius: float, generator: torch.Generator) -> list[Tensor]:
        """What noise is crafted to survive: t(x + du) + da."""
        return self._raised(images, loss, radius, generator)

    def _raised(self, images: list[Tensor], loss: Loss, radius: float, generator: torch.Generator) -> list[Tensor]:
        """The pictures with da within `radius` that raises their loss; gradient flows to them, and not through da."""
        fixed = [x.detach() for x in images]
        delta = [uniform(x, radius, generator) for x in fixed]
        for _ in range(self.config.inner_steps):
            leaves = [(x + d).requires_grad_() for x, d in zip(fixed, delta, strict=True)]
            with torch.enable_grad():
                gradients = torch.autograd.grad(loss(leaves), leaves)
            delta = [
                sign_descent(d, g, x, -self.config.inner_step / 255, radius)
                for d, g, x in zip(delta, gradients, fixed, strict=True)
            ]
        return [x + d for x, d in zip(images, delta, strict=True)]

    def _train_step(
        self, surrogate: Surrogate, part: Sequence[int], noise: Noise, radius: float, generator: torch.Generator
    ) -> float:
        """One step of adversarial training on the augmented pictures as they now are; returns the loss."""

        def worst(indices: Sequence[int]) -> list[Tensor]:
            lvlm = surrogate.lvlm
            images = [shifted(as_rgb(x), self.config.shift, generator).to(lvlm.device) for x in noise.shown(indices)]
            batch = surrogate.encode(indices, images)

            def loss(shown: Sequence[Tensor]) -> Tensor:
                return lvlm.forward(lvlm.with_images(batch, shown), answers_only=True).losses.sum()

            return self._raised(images, loss, radius, generator)

        return surrogate.train_step(part, worst)


def uniform(clean: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Noise drawn evenly from the ball around a picture, within its range."""
    return project((2 * torch.rand(clean.shape, generator=generator).to(clean) - 1) * radius, clean, radius)
