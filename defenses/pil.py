"""PIL: perturbation-induced linearisation (Liu 2026, arXiv 2601.19967), noise of a linear classifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from arena.data.copies import shared
from arena.data.sample import Sample
from arena.lvlm.perturbation import PIXELS, batches, check_finite, planes, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels, PluginConfig, setting
from defenses.claims import DEVIATIONS, DRAWS
from defenses.flat import common_size, flat, several_classes
from defenses.perturbations import Perturbations, shuffled

USUAL = 3 * 32 * 32
"""Values of a picture for which the authors' learning rate is."""

MOMENTUM = 0.9


class PerturbationInducedLinearization(ImageDefense):
    """min over delta of lambda CE(f(delta), y) + (1 - lambda) KL(uniform, f(x - delta)); x - delta is released.

    f is linear and has no bias: two matrices, trained on the clean data by SGD. The first term lets a linear model read
    the class off the noise alone, the second leaves it nothing to read in the picture; a network that learns from both
    becomes a linear one. Noise starts at a uniform draw and takes sign steps in the ball, and released values are
    clipped to [0, 1], once. Order and sign of all parts, steps and sizes are those of the authors' code, lambda too.

    Adapted: the class is the answer, see `defenses.classes`. f sees all pictures at one size, see `defenses.flat`. The
    learning rate is the authors' divided by how many times more values a picture has than theirs of 32 x 32, since that
    is by how much the loss is more curved. As data are small, f takes as many steps as theirs, 30 passes of 98, and not
    as many passes; their minibatches are of 512. Samples that show one picture share its noise, and their terms are
    added up. Raises `ArenaError` where all samples have one answer.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        train_steps: int = setting(2940, dry_run=40, ge=1, description="training steps of the classifier")
        learning_rate: float = Field(3e-3, gt=0, description="of the classifier (SGD, cosine), for 32 x 32 pixels")
        pgd_steps: int = setting(30, dry_run=2, ge=1, description="noise steps")
        step: float = Field(0.8, gt=0, description="size of a noise step, in 1/255; a tenth of the radius")
        shortcut: float = Field(0.9, ge=0, le=1, description="the paper's lambda, the weight of what the noise tells")
        batch_size: int = setting(8, ge=1, description="samples per step, of training and of noise")

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, epsilon, generator = self.config, world.budget.epsilon, world.torch_generator()
        classes, sharing = several_classes(samples, world.seed, "pil"), shared(samples, False)
        seen = Linear.trained(samples, classes, c, world)
        noise = Perturbations([samples[i] for i in sharing.first], torch.float32)
        for d, i in enumerate(sharing.first):
            noise[d] = (2 * torch.rand(planes(samples[i].image).shape, generator=generator) - 1) * epsilon
        parts = sharing.parts([s.image.width * s.image.height for s in samples], c.batch_size, PIXELS)
        for number, part in enumerate(parts):
            shares = sharing.local(part)
            of_sample = [shares.delta[p] for p in shares.picture]
            clean = seen([planes(samples[part[i]].image) for i in shares.shows])[list(shares.picture)]
            delta = [noise[d] for d in shares.deltas]
            for _ in range(c.pgd_steps):
                leaves = [d.requires_grad_() for d in delta]
                told, left = terms(clean, seen(leaves)[of_sample], classes[part])
                loss = c.shortcut * told + (1 - c.shortcut) * left
                check_finite("the linear classifier's loss", [loss])
                gradients = torch.autograd.grad(loss, leaves)
                delta = [
                    d.detach().sub_(g.sign_(), alpha=c.step / 255).clamp_(-epsilon, epsilon)
                    for d, g in zip(leaves, gradients, strict=True)
                ]
            for d, values in zip(shares.deltas, delta, strict=True):
                noise[d] = values
            world.progress((number + 1) / len(parts))
        return (to_pixels(s.image, planes(s.image) - noise[d]) for s, d in zip(samples, sharing.of_sample, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The linear classifier's loss of the class is lower on what was subtracted than on random signs of it, by more
        than chance; with no weight on that, its answers on the release are nearer to even ones."""
        classes, generator = several_classes(samples, world.seed, "pil"), world.torch_generator()
        seen, losses = Linear.trained(samples, classes, self.config, world), torch.zeros(2, 1 + DRAWS).double()
        for part in batches(len(samples), self.config.batch_size):
            clean = [planes(samples[i].image) for i in part]
            delta = [x - planes(released[i].image) for x, i in zip(clean, part, strict=True)]
            signs = (
                [d * (2 * torch.randint(2, d.shape, generator=generator) - 1) for d in delta] for _ in range(DRAWS)
            )
            logits = seen(clean)
            for place, noise in enumerate((delta, *signs)):
                losses[:, place] += torch.stack(terms(logits, seen(noise), classes[list(part)]))
        found, random, spread = losses[:, 0], losses[:, 1:].mean(1), losses[:, 1:].std(1)
        own = 0 if self.config.shortcut else 1
        if found[own] < random[own] - DEVIATIONS * spread[own]:
            return None
        what = "loss on the noise" if self.config.shortcut else "distance from even answers"
        seen_under = f"{random[own]:.6g} +- {spread[own]:.2g}"
        return f"a linear classifier's {what} is {found[own]:.6g}, under random signs {seen_under}"


def terms(clean: Tensor, noise: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """CE(f(delta), y), and KL(uniform, f(x - delta)) without its constant, each added up over samples, from the
    classifier's logits ``(n, kinds)`` of pictures and of their noise: f(x - delta) = f(x) - f(delta)."""
    return F.cross_entropy(noise, classes, reduction="sum"), -(clean - noise).log_softmax(1).mean(1).sum()


class Linear:
    """A linear classifier of pictures of one size `(height, width)`, whose `weights` are ``(kinds, 3 * pixels)``; it
    sees others resized, which is linear too."""

    def __init__(self, size: tuple[int, int], weights: Tensor) -> None:
        self._size, self._weights = size, weights

    @classmethod
    def trained(
        cls,
        samples: Sequence[Sample],
        classes: Tensor,
        config: PerturbationInducedLinearization.Config,
        world: DefenderWorld,
    ) -> Linear:
        """One that has learned the classes ``(n,)`` of the clean pictures."""
        torch.manual_seed(world.seed)
        size, kinds = common_size(samples), int(classes.max()) + 1
        values = 3 * size[0] * size[1]
        first, second = nn.Linear(values, kinds, bias=False), nn.Linear(kinds, kinds, bias=False)
        layers = nn.Sequential(first, second)
        optimizer = torch.optim.SGD(layers.parameters(), lr=config.learning_rate * USUAL / values, momentum=MOMENTUM)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.train_steps)
        order = shuffled(len(samples), config.batch_size, world.rng())
        for number in range(config.train_steps):
            part = next(order)
            loss = F.cross_entropy(layers(flat([planes(samples[i].image) for i in part], size)), classes[part])
            check_finite("the linear classifier's loss", [loss])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if number % 100 == 0:
                world.progress(0.0, f"classifier, step {number} of {config.train_steps}, loss {loss.item():.3f}")
        return cls(size, (second.weight @ first.weight).detach())

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Logits ``(n, kinds)`` of planes ``(C, H, W)`` in [0, 1], or of noise."""
        return flat(images, self._size) @ self._weights.T
