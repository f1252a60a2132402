"""DUNE: noise and a colour of each class, both towards shifted labels (Wang 2026, arXiv 2605.01718)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from pydantic import Field
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from arena.budget import Budget
from arena.data.sample import Sample
from arena.lvlm.adapters import with_model
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import as_rgb, check_finite, pieces, planes, to_pixels
from arena.plugins.base import DefenderWorld, Effort, ImageDefense, Pixels, setting
from defenses.claims import changes, noise_lowers_the_loss
from defenses.classes import MOST_CLASSES, answer_classes, picture_classes
from defenses.flat import several_classes
from defenses.hypo import FixedConfig
from defenses.noise import Noise
from defenses.perturbations import shuffled
from defenses.purifying import Purifying
from defenses.surrogate import Surrogate
from defenses.tap import aimed
from mmguard.settings import image_steps

SHIFT = 3
"""By how many classes a label is shifted; the authors'."""

START, SPEED = 0.1, 0.1
"""Bound of the colours that the search begins with, in [0, 1] pixel values, and of its first steps as a share of it."""

INERTIA, PULL = 0.5, 0.3
"""Of a step what is kept, and what goes to its own best place and to that of all, each."""

LEAST_PSNR, LEAST_SSIM = 20.0, 0.8
"""In dB, and in [-1, 1]: what a colour is punished for being below."""

C1 = 0.01**2
"""SSIM's constant of brightness, for values in [0, 1]."""


class DualBranch(Purifying, ImageDefense):
    """min over delta and c_y of the mean over models of CE(f(x + delta), y + 3) and of CE(f(x + c_y), y + 3), apart;
    x + delta + c_y is released.

    Two branches lead pictures of a class to the label three classes further. The spatial one has noise of each picture,
    30 sign steps from no noise against the mean gradient of 5 models. The colour one has a colour of each class, added
    to every pixel, to outlast what undoes the noise: particle swarm search, 10 particles and 10 iterations, looks for
    the one of least loss under the same models, and of a penalty for a PSNR below 20 dB and a SSIM below 0.8. Models
    are states of one training on the clean data, evenly spaced. Numbers are those of the authors' code, in which the
    place that is best of all goes on moving with its particle after it was found; here it is kept.

    Adapted: theirs adds colours that begin within 0.1, 25 levels, to noise of 8/255. Here both keep the budget
    together: colours have a share of its radius, half of it by default, and noise the rest, so that of 8/255 the
    colours are much weaker than published. Particles stop at the bound. There is no LPIPS here, which the authors
    punish above 0.03; the budget stands in for it. SSIM is that of a colour that is cut off nowhere, which depends on
    local means alone. A class is an answer, see `defenses.classes`, in alphabetical order, and its label the tokens of
    its most frequent answer. Of three classes the label is shifted by one, as three would lead back. A picture with
    several answers has the colour of the first one's class, a grey one the mean of the three values. Models are
    pretrained ones with LoRA adapters, trained as for `hypo`. A class's colour is found on 8 of its samples and not on
    1,000. Several surrogates are descended on together.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed", "surrogates"})
    packages = ("scikit-learn", "scipy")

    class Config(FixedConfig):
        models: int = setting(5, dry_run=1, ge=1, description="states of the surrogate in training; 5 is the authors'")
        pgd_steps: int = setting(30, dry_run=2, ge=1, description="noise steps; 30 is the authors'")
        step: float = setting(0.5, dry_run=4, gt=0, description="size of a noise step, in 1/255; 0.5 is the authors'")
        colour: float = Field(0.5, ge=0, le=1, description="share of the radius that colours have; noise has the rest")
        particles: int = setting(
            10, dry_run=2, ge=1, description="colours that are tried at a time; 10 is the authors'"
        )
        iterations: int = setting(10, dry_run=1, ge=1, description="times that they move; 10 is the authors'")
        pictures: int = setting(8, ge=1, description="samples of a class that its colour is found on, at most")

    config: Config

    def effort(self, samples: int, budget: Budget) -> Effort:
        """Training on the clean data, the search for as many classes as there can be, and the noise steps."""
        c = self.config
        minibatches = c.clean_steps * min(c.batch_size, samples) / samples
        tried = c.models * c.particles * c.iterations * min(1, MOST_CLASSES * c.pictures / samples)
        return Effort(forwards=tried, gradients=c.models * image_steps(c.pgd_steps, c) + minibatches)

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, epsilon = self.config, world.budget.epsilon
        models = self._models(samples, shifted_labels(samples, world.seed), world)
        colours = self._colours(samples, models, c.colour * epsilon, world)
        noise = Noise(samples, (1 - c.colour) * epsilon, c.batch_size, c.copies == "near")
        if c.colour < 1:
            noise.descend(models, [c.step / 255] * c.pgd_steps, c, progress=world.progress)
        kinds = picture_classes(samples, c.copies == "near", world.seed)
        return (
            to_pixels(s.image, coloured(x, colours[kinds[i]])) for i, s in enumerate(samples) for x in noise.shown([i])
        )

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The mean change of a picture's pixels is that of its class; and the loss of the shifted labels, by models
        that have learned the original pictures, is lower than on these, and than with random signs of the changes."""
        labelled = shifted_labels(samples, world.seed)
        kinds = picture_classes(samples, self.config.copies == "near", world.seed)
        means = np.stack([delta.mean((0, 1)) * np.ones(3) for delta in changes(samples, released)])
        own = np.stack([means[kinds == kind].mean(0) for kind in kinds])
        found, wrong = np.abs(means).mean(), np.abs(means - own).mean()
        if self.config.colour and not wrong < found / 2:
            return (
                f"pixels of a picture change by {found:.3g}/255 in the mean, which is {wrong:.3g}/255 off that of its "
                "class: they should have one colour"
            )
        learned = [model.lvlm for model in self._models(samples, labelled, world)]
        return noise_lowers_the_loss(samples, released, world, labelled, learned)

    def _models(self, samples: Sequence[Sample], labelled: Sequence[Sample], world: DefenderWorld) -> list[Surrogate]:
        """The states of the surrogates while they learn the clean data, evenly spaced, each with the labels that noise
        aims at."""
        c = self.config

        def clean(indices: Sequence[int]) -> list[Tensor]:
            return [planes(samples[i].image) for i in indices]

        torch.manual_seed(world.seed)
        surrogates = [Surrogate.start(lvlm, samples, c) for lvlm in world.surrogates()]
        order, kept = shuffled(len(samples), c.batch_size, world.rng()), list[Surrogate]()
        for number in range(c.clean_steps):
            part = next(order)
            for surrogate in surrogates:
                surrogate.train_step(part, clean)
            if (number + 1) * c.models // c.clean_steps > number * c.models // c.clean_steps:
                kept += [as_it_is(surrogate, labelled) for surrogate in surrogates]
        world.diagnostics |= {"surrogate_error": max(s.errors(clean) for s in surrogates)}
        return kept

    def _colours(
        self, samples: Sequence[Sample], models: Sequence[Surrogate], radius: float, world: DefenderWorld
    ) -> Tensor:
        """The colour of each class, float ``(classes, 3)`` in [-radius, radius]."""
        c, rng, classes = self.config, world.rng(), answer_classes(samples, world.seed)
        found = []
        for kind in range(int(classes.max()) + 1):
            members = np.flatnonzero(classes == kind)[: c.pictures].tolist()
            cost = self._cost(samples, members, models)
            found.append(swarm(cost, radius, c.particles, c.iterations, rng))
            world.progress(0.0, f"colour of class {kind + 1} of {classes.max() + 1}")
        return torch.from_numpy(np.stack(found)).float()

    def _cost(
        self, samples: Sequence[Sample], members: Sequence[int], models: Sequence[Surrogate]
    ) -> Callable[[np.ndarray], float]:
        """What a colour costs on some samples: the mean loss of shifted labels, and the penalty for its looks."""
        parts = pieces(members, samples)
        clean = [[planes(samples[i].image) for i in part] for part in parts]
        local = [local_means(x) for images in clean for x in images]
        encoded: list[tuple[Surrogate, list[Batch]]] = [
            (model, [model.encode(part, images) for part, images in zip(parts, clean, strict=True)]) for model in models
        ]

        @torch.no_grad()
        def cost(colour: np.ndarray) -> float:
            added, total = torch.from_numpy(colour).float(), 0.0
            for model, batches in encoded:
                for batch, images in zip(batches, clean, strict=True):
                    shown = [as_rgb(coloured(x, added)).to(model.lvlm.device) for x in images]
                    losses = model.lvlm.forward(model.lvlm.with_images(batch, shown), answers_only=True).losses
                    check_finite("the surrogate's loss", [losses])
                    total += float(losses.sum())
            return total / (len(models) * len(members)) + penalty(colour, local)

        return cost


def shifted_labels(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The samples with the answer of the class three after their own, one after it of three classes: the most frequent
    one of it. Raises `ArenaError` where all are of one class."""
    classes = several_classes(samples, seed, "dune").tolist()
    count = max(classes) + 1
    answers = {(kind + 1) % count: s.answer for kind, s in zip(classes, aimed(samples, seed), strict=True)}
    shift = SHIFT if SHIFT % count else 1
    return [replace(s, answer=answers[(kind + shift) % count]) for s, kind in zip(samples, classes, strict=True)]


def as_it_is(surrogate: Surrogate, labelled: Sequence[Sample]) -> Surrogate:
    """The surrogate as it is now, which learns no more, with other labels; its frozen weights lie in memory once."""
    model = surrogate.lvlm.model
    frozen = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters() if not p.requires_grad}
    kept = copy.deepcopy(model, frozen).eval().requires_grad_(False)
    return replace(surrogate, lvlm=with_model(surrogate.lvlm, kept), samples=labelled)


def swarm(
    cost: Callable[[np.ndarray], float], radius: float, particles: int, iterations: int, rng: np.random.Generator
) -> np.ndarray:
    """The colour ``(3,)`` in [-radius, radius] of least cost that particles have come to."""
    start = min(radius, START)
    places = rng.uniform(-start, start, (particles, 3))
    speeds = rng.uniform(-SPEED * start, SPEED * start, (particles, 3))
    own, least = places.copy(), np.full(particles, np.inf)
    for _ in range(iterations):
        costs = np.array([cost(place) for place in places])
        own[costs < least] = places[costs < least]
        least = np.minimum(least, costs)
        speeds = INERTIA * speeds + PULL * (own - places) + PULL * (own[least.argmin()] - places)
        places = (places + speeds).clip(-radius, radius)
    return np.asarray(own[least.argmin()])


def coloured(x: Tensor, colour: Tensor) -> Tensor:
    """Planes ``(1 or 3, H, W)`` in [0, 1] with a colour ``(3,)`` added to every pixel; a grey one gets its mean."""
    added = colour if len(x) == 3 else colour.mean(0, keepdim=True)
    return (x + added[:, None, None]).clamp(0, 1)


def local_means(x: Tensor) -> np.ndarray:
    """The means of a picture ``(C, H, W)`` under the windows of SSIM, ``(3, h, w)``, as scikit-image has them: 7 x 7,
    smaller for smaller pictures."""
    side = min(7, *(length - 1 + length % 2 for length in x.shape[-2:]))
    means = uniform_filter(as_rgb(x).numpy(), (0, side, side))
    edge = (side - 1) // 2
    return np.asarray(means[:, edge : means.shape[1] - edge, edge : means.shape[2] - edge], float)


def penalty(colour: np.ndarray, local: Sequence[np.ndarray]) -> float:
    """By how much PSNR, in dB, and the mean SSIM of pictures of these local means lie below their bounds, added up."""
    changed = float(np.square(colour).mean())
    psnr = np.inf if changed == 0 else -10 * np.log10(changed)
    punished = []
    for means in local:
        moved = means + colour[:, None, None]
        alike = ((2 * means * moved + C1) / (np.square(means) + np.square(moved) + C1)).mean()
        punished.append(max(0.0, LEAST_SSIM - float(alike)))
    return max(0.0, LEAST_PSNR - float(psnr)) + float(np.mean(punished))
