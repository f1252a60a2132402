"""The control: data released as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.data.sample import Sample, digest
from arena.plugins.base import DefenderWorld, Defense, Draft


class NoDefense(Defense):
    """No protection: pictures and questions unchanged.

    Budget: none.
    """

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        return (Draft(s.image, s.question) for s in samples)

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Nothing changes."""
        return None if digest(samples) == digest(released) else "something changed"
