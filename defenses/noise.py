"""Noise that moves by sign steps, batch after batch: what methods share that craft pictures against a loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from arena.data.copies import Local, shared
from arena.data.sample import Sample
from arena.lvlm.adapters import fused
from arena.lvlm.batch import Batch
from arena.lvlm.perturbation import PIXELS, as_rgb, check_finite, planes, project, sign_descent, to_pixels
from arena.plugins.base import Pixels
from defenses.looks import Look, Loss, as_they_are
from defenses.perturbations import Perturbations
from defenses.surrogate import Surrogate
from mmguard.purifiers import Seen, views
from mmguard.settings import Pictures


class Noise:
    """One perturbation for each picture of some samples, float ``(C, H, W)`` in [-epsilon, epsilon], zero at first.

    Samples that show one picture share it, near copies too with `near`. It lies in a file, and `batch_size` samples are
    worked on at a time, fewer where pictures are large, so that memory does not grow with the data.
    """

    def __init__(self, samples: Sequence[Sample], epsilon: float, batch_size: int, near: bool) -> None:
        self._samples, self._epsilon = samples, epsilon
        self._sharing = shared(samples, near)
        self._pictures = Counter(self._sharing.delta)
        self._delta = Perturbations([samples[i] for i in self._sharing.first], torch.float32)
        self._parts = self._sharing.parts([s.image.width * s.image.height for s in samples], batch_size, PIXELS)

    def of_sample(self, index: int) -> Tensor:
        """A sample's noise as it is now, within the range of its picture."""
        d = self._sharing.of_sample[index]
        if self._pictures[d] == 1:
            return self._delta[d]
        return project(self._delta[d], planes(self._samples[index].image), self._epsilon)

    def shown(self, indices: Sequence[int]) -> list[Tensor]:
        """The pictures of some samples with their noise, float planes in [0, 1]."""
        return [planes(self._samples[i].image) + self.of_sample(i) for i in indices]

    def released(self) -> Iterator[Pixels]:
        """The picture of every sample with its noise, as a draft."""
        return (to_pixels(s.image, planes(s.image) + self.of_sample(i)) for i, s in enumerate(self._samples))

    def start(self, draw: Callable[[torch.Size], Tensor]) -> None:
        """Every perturbation anew, as `draw` gives it for a shape, in units of the radius and clipped to it."""
        for d, i in enumerate(self._sharing.first):
            clean = planes(self._samples[i].image)
            drawn = (draw(clean.shape) * self._epsilon).clamp(-self._epsilon, self._epsilon)
            self._delta[d] = project(drawn, clean, self._epsilon) if self._pictures[d] == 1 else drawn

    def descend(
        self,
        surrogates: Sequence[Surrogate],
        steps: Sequence[float],
        pictures: Pictures,
        looks: Sequence[Look] = (as_they_are,),
        turn: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Steps of these sizes, in [0, 1] pixel values, against the sign of the gradient of the surrogates' losses
        together; noise of several pictures takes the sum of their gradients, and is held in the ball alone.

        The losses are those of what `looks` show, one after the other. They are also taken through the views and the
        purifiers that `pictures` asks for; `turn` numbers those of the first step. `progress` is told what share of the
        batches is done.
        """
        with ExitStack() as stack:
            for surrogate in surrogates:
                stack.enter_context(fused(surrogate.lvlm))
            for place, part in enumerate(self._parts):
                shares = self._sharing.local(part)
                clean = [planes(self._samples[part[i]].image) for i in shares.shows]
                delta = [self._delta[d] for d in shares.deltas]
                counts = [shares.delta.count(d) for d in range(len(delta))]
                first = [shares.delta.index(d) for d in range(len(delta))]
                encoded = [s.encode(part, [clean[p] for p in shares.picture]) for s in surrogates]
                for number, step in enumerate(steps):
                    found = [
                        gradients(surrogate, part, batch, shares, clean, delta, pictures, turn + number, looks)
                        for surrogate, batch in zip(surrogates, encoded, strict=True)
                    ]
                    delta = [
                        sign_descent(d, g, clean[p], step, self._epsilon)
                        if count == 1
                        else (d - step * g.sign()).clamp(-self._epsilon, self._epsilon)
                        for d, g, p, count in zip(delta, _added(found), first, counts, strict=True)
                    ]
                for d, values in zip(shares.deltas, delta, strict=True):
                    self._delta[d] = values
                if progress is not None:
                    progress((place + 1) / len(self._parts))


def gradients(
    surrogate: Surrogate,
    part: Sequence[int],
    batch: Batch,
    shares: Local,
    clean: Sequence[Tensor],
    delta: Sequence[Tensor],
    beside: Pictures,
    turn: int,
    looks: Sequence[Look] = (as_they_are,),
) -> list[Tensor]:
    """Of the loss of the samples `part` by each noise: through the surrogate's own view of the pictures, and those that
    `beside` asks for, and of each what `looks` show; one after the other, so that one is in memory."""
    leaves, lvlm = [d.clone().requires_grad_() for d in delta], surrogate.lvlm
    total: dict[int, Tensor] = {}
    for seen in (None, *views(beside, turn)):
        chosen = [i for i, p in enumerate(shares.picture) if seen is None or seen.concerned(lvlm, *clean[p].shape[-2:])]
        if not chosen:
            continue
        pictures = sorted({shares.picture[i] for i in chosen})
        loss = _loss(surrogate, part, batch, shares, seen, chosen, pictures)
        for look in looks:
            images = [
                as_rgb(_perturbed(clean[p], leaves[d], shares.delta.count(d) > 1)).to(lvlm.device)
                for p, d in ((p, shares.delta[p]) for p in pictures)
            ]
            value = loss(look(images if seen is None else seen.pictures(images), loss))
            found = {
                d: gradient
                for d, gradient in enumerate(torch.autograd.grad(value, leaves, allow_unused=True))
                if gradient is not None
            }
            check_finite("the gradient in the pixels", list(found.values()))
            for d, gradient in found.items():
                total[d] = total[d] + gradient if d in total else gradient
    return [total[d] for d in range(len(leaves))]


def _loss(
    surrogate: Surrogate,
    part: Sequence[int],
    batch: Batch,
    shares: Local,
    seen: Seen | None,
    chosen: Sequence[int],
    pictures: Sequence[int],
) -> Loss:
    """The loss of the `chosen` samples of a part by these `pictures` of it, all as in `batch` in the surrogate's own
    view, which is None; others may have other sizes."""

    def loss(images: Sequence[Tensor]) -> Tensor:
        of_picture = dict(zip(pictures, images, strict=True))
        shown = [of_picture[shares.picture[i]] for i in chosen]
        if seen is None:
            encoded = surrogate.lvlm.with_images(batch, shown)
        else:
            encoded = surrogate.encode([part[i] for i in chosen], shown, seen.questions)
        return surrogate.lvlm.forward(encoded, answers_only=True).losses.sum()

    return loss


def _perturbed(clean: Tensor, delta: Tensor, several: bool) -> Tensor:
    """x + delta; noise of `several` pictures was projected onto none of them."""
    return (clean + delta).clamp(0, 1) if several else clean + delta


def _added(lists: Sequence[list[Tensor]]) -> list[Tensor]:
    """Lists of tensors added up, place by place."""
    total = lists[0]
    for one in lists[1:]:
        total = [a + b for a, b in zip(total, one, strict=True)]
    return total
