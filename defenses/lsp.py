"""LSP: linearly separable synthetic patches (Yu 2022, arXiv 2111.00898)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from pydantic import Field
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from arena.data.sample import Sample
from arena.lvlm.perturbation import planes, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels, PluginConfig
from defenses.bounded import within
from defenses.claims import changes, free
from defenses.classes import answer_classes


class LinearlySeparablePatches(ImageDefense):
    """Each sample gets a point of its class's cluster, one coordinate per patch and channel, painted as flat patches.

    Clusters sit on corners of a hypercube (scikit-learn's `make_classification`), so that a linear classifier of the
    noise alone is perfect. The point is scaled to L2 = radius / 255 * sqrt(d), d pixel values, and then held within the
    budget, which may be an L-infinity one: the published one is the L2 one, which rounding to 8 bits must not exceed.
    No surrogate.

    Budget: L2 on pictures, or any norm that bounds values.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        radius: float = Field(6, gt=0, description="L2 norm of the noise in units of sqrt(d) / 255; 6 is the paper's")
        patch: int = Field(8, ge=1, description="side of a patch in pixels; 8 is the paper's")
        separation: float = Field(10, gt=0, description="distance of the clusters, `class_sep`; 10 is the paper's")

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        c = self.config
        columns, rows = (max(-(-s.image.size[axis] // c.patch) for s in samples) for axis in (0, 1))
        points = self._points(answer_classes(samples, world.seed), 3 * rows * columns, world.seed)
        for sample, point in zip(samples, points, strict=True):
            x = planes(sample.image)
            pattern = torch.from_numpy(point).float().view(3, rows, columns)
            pattern = pattern.repeat_interleave(c.patch, 1).repeat_interleave(c.patch, 2)
            noise = pattern[: x.shape[0], : x.shape[1], : x.shape[2]]
            noise = noise / noise.square().mean().sqrt() * c.radius / 255
            yield to_pixels(sample.image, x + within(noise, x, world.budget))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """The noise is flat patches, which tell a linear classifier the class, also of samples that it has not seen."""
        side = self.config.patch
        for sample, delta in zip(samples, changes(samples, released), strict=True):
            inside = free(sample, int(np.abs(delta).max()))
            corner, seen = (
                part[::side, ::side].repeat(side, 0).repeat(side, 1)[: delta.shape[0], : delta.shape[1]]
                for part in (delta, inside)
            )
            if (apart := np.abs(delta - corner)[inside & seen]).size and apart.max() > 1:  # floats round as they may
                return f"the noise of sample {sample.id!r} is not of flat patches of {side} pixels"
        classes = answer_classes(samples, world.seed)
        if len({s.image.size for s in samples}) > 1 or np.bincount(classes).min() < 4 or classes.max() < 1:
            return "this cannot be seen: it takes pictures of one size, two classes, and four samples of each"
        noise = np.stack([delta.mean(2).ravel() for delta in changes(samples, released)])
        order = np.argsort(classes, kind="stable")  # so that both halves have every class
        learner = LogisticRegression(max_iter=2000).fit(noise[order[::2]], classes[order[::2]])
        right = learner.score(noise[order[1::2]], classes[order[1::2]])
        return None if right == 1 else f"a linear classifier tells the class of {right:.0%} of unseen samples"

    def _points(self, classes: np.ndarray, size: int, seed: int) -> np.ndarray:
        """One point per sample, float ``(n, size)``, drawn from the cluster of its class."""
        kinds, counts = np.unique(classes, return_counts=True)
        drawn, labels = make_classification(
            n_samples=2 * len(kinds) * int(counts.max()),
            n_features=size,
            n_informative=size,
            n_redundant=0,
            n_classes=len(kinds),
            n_clusters_per_class=1,
            class_sep=self.config.separation,
            flip_y=0,
            shuffle=False,
            random_state=seed,
        )
        points = np.empty((len(classes), size))
        for number, kind in enumerate(kinds):
            points[classes == kind] = drawn[labels == number][: counts[number]]
        return points
