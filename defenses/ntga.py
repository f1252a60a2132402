"""NTGA: neural tangent generalisation attack (Yuan 2021): data that wide networks learn nothing general from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from arena.data.copies import Sharing, shared
from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.perturbation import PIXELS, check_finite, planes, sign_descent, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels, PluginConfig, setting
from defenses.claims import DEVIATIONS, DRAWS
from defenses.flat import common_size, flat, several_classes
from defenses.perturbations import Perturbations

WEIGHTS, BIASES, LAYERS = 1.76, 0.18, 5
"""Variances of a network's first weights and biases, and its layers: the authors' fully connected one."""


class NeuralTangentGeneralization(ImageDefense):
    """max over delta of CE(f_t(validation pictures), y), where f_t is what infinitely wide networks predict on average
    after training for a time t on the pictures x + delta and their classes, by gradient descent on squared errors.

        f_t(V) = K(V, X) K(X, X)^-1 (I - exp(-K(X, X) t / (n c))) Y      for n pictures of c classes

    K is the neural tangent kernel, here of five fully connected layers with erf, which has a closed form; a ridge of
    its mean diagonal makes K(X, X) regular. So nothing is trained, and no model is needed. Noise starts at zero and
    takes steps of 1.1 radii in all. As published, data are worked on in blocks of 512, t is 64 and the ridge 1e-4.

    The authors' code hands the clean pictures to each of its 10 steps, at a step of the whole radius, so that all do
    the same; here each goes on from the one before, as the paper has it.

    Adapted: the class is the answer, see `defenses.classes`. Pictures are seen at one size, see `defenses.flat`, and a
    block has fewer where they are large. The authors hold out 10,000 clean pictures for validation; an owner protects
    all, so that each half is made against clean pictures of the other, as many as a block has. Samples that show one
    picture share its noise and are in one half. Raises `ArenaError` where all samples have one answer or show one
    picture.

    Budget: L∞ on pictures.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        pgd_steps: int = setting(10, dry_run=2, ge=1, description="noise steps; 10 is the authors'")
        step: float = Field(0.88, gt=0, description="size of a noise step, in 1/255; 1.1 radii in 10 steps")
        time: float = Field(64, gt=0, description="how long networks have been trained, in steps of rate 1")
        block: int = Field(512, ge=1, description="samples that are worked on together")
        ridge: float = Field(1e-4, gt=0, description="what is added to the kernel's diagonal, as a share of its mean")

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c, epsilon, sharing = self.config, world.budget.epsilon, shared(samples, False)
        classes, size = several_classes(samples, world.seed, "ntga"), common_size(samples)
        noise = Perturbations([samples[i] for i in sharing.first], torch.float32)
        blocks = list(self._blocks(sharing, size, world))
        for number, block in enumerate(blocks):
            held_out = _values([planes(samples[i].image) for i in block.validation], size)
            clean = [planes(samples[sharing.first[d]].image) for d in block.deltas]
            delta = [torch.zeros_like(x) for x in clean]
            for _ in range(c.pgd_steps):
                leaves = [d.requires_grad_() for d in delta]
                shown = [x + d for x, d in zip(clean, leaves, strict=True)]
                seen = _values([shown[p] for p in block.picture], size)
                loss = self._loss(seen, held_out, classes, block)
                gradients = torch.autograd.grad(loss, leaves)
                check_finite("the gradient in the pixels", gradients)
                delta = [
                    sign_descent(d.detach(), g, x, -c.step / 255, epsilon)
                    for d, g, x in zip(leaves, gradients, clean, strict=True)
                ]
            for d, values in zip(block.deltas, delta, strict=True):
                noise[d] = values
            world.progress((number + 1) / len(blocks), f"loss {loss.item() / len(block.validation):.3f}")
        return (to_pixels(s.image, planes(s.image) + noise[d]) for s, d in zip(samples, sharing.of_sample, strict=True))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Wide networks trained on the release have a higher loss on clean pictures than ones trained on the originals,
        and than on random signs of the same noise."""
        classes, size = several_classes(samples, world.seed, "ntga"), common_size(samples)
        sharing = shared(samples, False)
        generator, losses = world.torch_generator(), torch.zeros(2 + DRAWS, dtype=torch.float64)
        for block in self._blocks(sharing, size, world):
            held_out = _values([planes(samples[i].image) for i in block.validation], size)
            before, after = ([planes(s[i].image) for i in block.train] for s in (samples, released))
            signs = [
                [
                    x + (y - x) * (2 * torch.randint(2, x.shape, generator=generator) - 1)
                    for x, y in zip(before, after, strict=True)
                ]
                for _ in range(DRAWS)
            ]
            for place, shown in enumerate((before, after, *signs)):
                losses[place] += self._loss(_values(shown, size), held_out, classes, block)
        clean, crafted = losses[:2].tolist()
        random, spread = float(losses[2:].mean()), float(losses[2:].std())
        if crafted > max(clean, random + DEVIATIONS * spread):
            return None
        return (
            f"wide networks have a loss of {crafted:.6g} after training on the release, {clean:.6g} on the originals, "
            f"{random:.6g} +- {spread:.2g} on random signs of the noise"
        )

    def _loss(self, seen: Tensor, held_out: Tensor, classes: Tensor, block: Block) -> Tensor:
        """The cross-entropy of a block's validation pictures, added up, after training on what is seen of its own;
        `classes` are those of all samples."""
        labels = F.one_hot(classes)[block.train].to(seen)
        answers = predicted(seen, held_out, labels, self.config.time, self.config.ridge)
        return F.cross_entropy(answers, classes[block.validation], reduction="sum")

    def _blocks(self, sharing: Sharing, size: tuple[int, int], world: DefenderWorld) -> Iterator[Block]:
        """All pictures in blocks, each with validation samples of the other half."""
        order = world.rng().permutation(len(sharing.first)).tolist()
        if len(order) == 1:
            raise ArenaError("ntga: all samples show one picture, and others are needed to validate; protect more")
        members: list[list[int]] = [[] for _ in order]
        for i, d in enumerate(sharing.of_sample):
            members[d].append(i)
        most = max(1, min(self.config.block, PIXELS // (size[0] * size[1])))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for own, other in (halves, halves[::-1]):
            validation = [i for d in other for i in members[d]][:most]
            block: list[int] = []
            for d in own:
                if block and sum(len(members[b]) for b in block) + len(members[d]) > most:
                    yield Block.of(block, members, validation)
                    block = []
                block.append(d)
            yield Block.of(block, members, validation)


@dataclass(frozen=True)
class Block:
    """Perturbations that are made together: `deltas` are their numbers, `train` the samples that show them, `picture`
    of each of these the place of its perturbation, and `validation` other samples."""

    deltas: list[int]
    train: list[int]
    picture: list[int]
    validation: list[int]

    @classmethod
    def of(cls, deltas: list[int], members: Sequence[Sequence[int]], validation: list[int]) -> Block:
        shown = [(i, place) for place, d in enumerate(deltas) for i in members[d]]
        return cls(deltas, [i for i, _ in shown], [place for _, place in shown], validation)


def predicted(seen: Tensor, held_out: Tensor, labels: Tensor, time: float, ridge: float) -> Tensor:
    """What networks answer to pictures ``(m, d)`` that were trained for so long on ``(n, d)`` with labels ``(n, c)``,
    float64, as the class says."""
    among, across = tangent_kernel(seen, seen), tangent_kernel(held_out, seen)
    among = among + ridge * among.diagonal().mean() * torch.eye(len(seen), dtype=among.dtype)
    left = torch.linalg.matrix_exp(-among * (time / labels.numel())) @ labels
    solved: Tensor = torch.linalg.solve(among, labels - left)
    return across @ solved


def tangent_kernel(one: Tensor, other: Tensor) -> Tensor:
    """The neural tangent kernel ``(n, m)`` of rows ``(n, d)`` and ``(m, d)``, for infinitely wide layers, each affine
    and then erf (Lee 2019, arXiv 1902.06720; arcsine kernels: Williams 1996)."""
    size = one.shape[1]
    covariance, first, second = one @ other.T / size, one.square().sum(1) / size, other.square().sum(1) / size
    kernel = torch.zeros_like(covariance)
    for _ in range(LAYERS):
        covariance, first, second = (WEIGHTS * x + BIASES for x in (covariance, first, second))
        kernel = covariance + WEIGHTS * kernel
        scale = (1 + 2 * first)[:, None] * (1 + 2 * second)
        kernel = kernel * (4 / math.pi) / (scale - 4 * covariance.square()).sqrt()
        covariance = (2 / math.pi) * (2 * covariance / scale.sqrt()).asin()
        first, second = ((2 / math.pi) * (2 * x / (1 + 2 * x)).asin() for x in (first, second))
    return kernel


def _values(images: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Rows of values, in double precision, which the kernel's inverse takes."""
    return flat(images, size).double()
