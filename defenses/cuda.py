"""CUDA: convolution-based unlearnable data (Sadasivan 2023, arXiv 2303.04278)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from arena.data.sample import Sample
from arena.lvlm.perturbation import planes, to_pixels
from arena.plugins.base import DefenderWorld, ImageDefense, Pixels, PluginConfig
from arena.release import build_release
from defenses.bounded import within
from defenses.claims import changes
from defenses.classes import answer_classes


class ConvolutionClasswise(ImageDefense):
    """All pictures of a class are convolved with one random filter of their class, and scaled to the whole range.

        x' = (k_y * x) / max(k_y * x), each colour by itself; weights of k_y from U(0, spread), the middle one 1

    A picture is padded with zeros, and the maximum is over all its pixels and colours, as in the authors' code; there
    the weight that is 1 stands at a random place of a filter: `one: anywhere`. The published method has no bound (norm
    unbounded). Within another budget so much of the change is made as it allows, which is another, weaker method: of
    most pictures 8/255 leave little but more light. The class is the answer. No surrogate.

    Adapted: the authors' code cuts fractions of an 8-bit level off, here they are rounded. A black picture stays black.

    Budget: unbounded on pictures.
    """

    needs = frozenset({"seed"})
    packages = ("scikit-learn",)

    class Config(PluginConfig):
        spread: float = Field(0.3, gt=0, le=10, description="bound of the weights beside the 1; 0.3 is the authors'")
        size: Literal[3, 5, 7, 9] = Field(3, description="side of a filter in pixels; 3 is the authors'")
        one: Literal["middle", "anywhere"] = Field(
            "middle", description="where in a filter the weight that is 1 stands"
        )

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        classes = answer_classes(samples, world.seed)
        filters = self._filters(int(classes.max()) + 1, world.rng())
        for sample, kind in zip(samples, classes, strict=True):
            x = planes(sample.image)
            yield to_pixels(sample.image, x + within(convolved(x, filters[kind]) - x, x, world.budget))

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Every picture is the original convolved with the filter of its class, as far as the budget allows."""
        wanted = build_release(samples, self.protect(samples, world), world.budget)
        for sample, difference in zip(samples, changes(wanted, released), strict=True):
            if np.abs(difference).max() > 1:  # floats round as they may
                return f"sample {sample.id!r} is not the original convolved with the filter of its class"
        return None if any(change.any() for change in changes(samples, released)) else "no picture changed"

    def _filters(self, classes: int, rng: np.random.Generator) -> np.ndarray:
        """The filter of each class, float ``(classes, size, size)``."""
        side = self.config.size
        found = rng.uniform(0, self.config.spread, (classes, side, side))
        places = (
            rng.integers(0, side, (classes, 2)) if self.config.one == "anywhere" else np.full((classes, 2), side // 2)
        )
        found[np.arange(classes), places[:, 0], places[:, 1]] = 1
        return found


def convolved(x: Tensor, weights: np.ndarray) -> Tensor:
    """Planes ``(C, H, W)`` in [0, 1] under a filter (the cross-correlation that deep learning calls convolution), over
    their maximum, which is 1 afterwards. Sums are in a fixed order, whatever the number of threads."""
    (height, width), side = x.shape[1:], len(weights)
    wide, total = pad(x, [side // 2] * 4), x.new_zeros(x.shape)
    for row, column in np.ndindex(side, side):
        total += float(weights[row, column]) * wide[:, row : row + height, column : column + width]
    largest = float(total.max())
    return total / largest if largest > 0 else total
