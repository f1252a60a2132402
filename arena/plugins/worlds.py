"""The objects through which each party sees the arena: what it is not handed, it does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from arena.budget import Budget
from arena.data.sample import Sample
from arena.errors import ArenaError

if TYPE_CHECKING:
    import torch

    from arena.lvlm.base import LVLM

T = TypeVar("T")


class World:
    """What every party is handed: a seed, and a way to say how far it is."""

    def __init__(self, seed: int | None, progress: Callable[[float, str], None] | None = None) -> None:
        self._seed = seed
        self._progress = progress

    @property
    def seed(self) -> int:
        """The seed of this cell; all randomness of a plugin derives from it."""
        return _granted(self._seed, "seed")

    def rng(self) -> np.random.Generator:
        """A fresh numpy generator at `seed`."""
        return np.random.default_rng(self.seed)

    def torch_generator(self) -> torch.Generator:
        """A fresh CPU torch generator at `seed`."""
        import torch

        return torch.Generator().manual_seed(self.seed)

    def progress(self, done: float, note: str = "") -> None:
        """Report the share done, 0 to 1, with a short note such as the current loss."""
        if self._progress is not None:
            self._progress(done, note)


class DefenderWorld(World):
    """What a data owner knows: the budget, their surrogate models, public auxiliary samples, a seed."""

    def __init__(
        self,
        budget: Budget,
        seed: int | None = None,
        surrogates: Callable[[], tuple[LVLM, ...]] | None = None,
        auxiliary: tuple[Sample, ...] | None = None,
        workspace: Path | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        super().__init__(seed, progress)
        self.budget = budget
        self._surrogates = surrogates
        self._auxiliary = auxiliary
        self.diagnostics: dict[str, float] = {}
        """Numbers about the crafting that the defense wants in the record, by name, such as its final loss."""
        self.workspace = workspace
        """A folder for intermediate state that survives an interruption (resumable crafting), or None."""

    def surrogates(self) -> tuple[LVLM, ...]:
        """The models the defender optimises against, freshly loaded, in the suite's order."""
        return _granted(self._surrogates, "surrogates")()

    @property
    def auxiliary(self) -> tuple[Sample, ...]:
        """Public samples of the same kind, disjoint from training and test data."""
        return _granted(self._auxiliary, "auxiliary")


class AttackerWorld(World):
    """What a fine-tuner knows: their base model, their own clean samples, originals that leaked, a seed."""

    def __init__(
        self,
        seed: int | None = None,
        model: Callable[[], LVLM] | None = None,
        auxiliary: tuple[Sample, ...] | None = None,
        fitted: Path | None = None,
        progress: Callable[[float, str], None] | None = None,
        notes: dict[str, Any] | None = None,
        originals: tuple[Sample, ...] | None = None,
    ) -> None:
        super().__init__(seed, progress)
        self._model = model
        self._auxiliary = auxiliary
        self._originals = originals
        self._fitted = fitted
        self.notes = {} if notes is None else notes
        """What `Attack.purify` leaves for `Attack.training` of the same attack, values that JSON can hold: empty while
        purifying, to be filled there."""

    def model(self) -> LVLM:
        """The fine-tuner's base model, freshly loaded."""
        return _granted(self._model, "model")()

    @property
    def auxiliary(self) -> tuple[Sample, ...]:
        """The attacker's own clean samples; how many is part of the threat model."""
        return _granted(self._auxiliary, "auxiliary")

    @property
    def has_auxiliary(self) -> bool:
        """Whether the attacker has clean samples of their own, for an attack that can do without."""
        return self._auxiliary is not None

    @property
    def originals(self) -> tuple[Sample, ...]:
        """Released samples as they were before they were protected, which leaked: the first ones of the release, with
        its ids. How many is part of the threat model."""
        return _granted(self._originals, "originals")

    @property
    def fitted(self) -> Path:
        """The folder that `Attack.fit` filled (read-only while purifying)."""
        return _granted(self._fitted, "fitted")


_GRANTS = {"auxiliary": "auxiliary samples", "originals": "a share of the released samples"}


def _granted(value: T | None, name: str) -> T:
    if value is None:
        more = f", and grant {_GRANTS[name]} in the suite (`auxiliary:`)" if name in _GRANTS else ""
        raise ArenaError(
            f"the plugin asked for {name!r}, which it was not granted: declare it in the class's `needs`{more}"
        )
    return value
