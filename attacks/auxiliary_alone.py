"""The control of attacks with clean data: the attacker's own samples, without the release."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from arena.data.sample import Sample
from arena.plugins.base import Attack, AttackerWorld


class AuxiliaryAlone(Attack):
    """Leaves the release out and trains on the clean samples the attacker was granted, repeated until there are as many
    as `mix` has: release and own samples together.

    So training takes as many steps. What an attack with clean data reaches beyond this is what the release was worth
    to it.
    """

    needs = frozenset({"auxiliary"})

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        own = world.auxiliary
        for number in range(len(samples) + len(own)):
            turn, place = divmod(number, len(own))
            yield replace(own[place], id=f"{own[place].id} ({turn + 1})") if turn else own[place]
