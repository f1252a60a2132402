"""Mixing: clean samples of the attacker's own among the released ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld


class Mix(Attack):
    """Adds every clean sample the attacker was granted; how many is the threat model's `auxiliary` share of the
    training size."""

    needs = frozenset({"auxiliary"})

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        return [*samples, *world.auxiliary]
