"""Whether a protection lost against a baseline: records of the same cells, seeds and test items from before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from arena.controls import CONTROLS
from arena.errors import UsageError
from arena.plugins.identity import CONTROL, PROTOCOL_VERSION, digest_of
from arena.plugins.registry import near_misses
from arena.records.schema import Asked, Record
from arena.score.statistics import CONFIDENCE, LEAST_SEEDS, Answers, Bits, holm
from arena.text import bound_text, shortened


@dataclass(frozen=True)
class Moved:
    """One cell over its seeds, before and after: the paired drop that the protection causes there, in accuracy, and
    how much of it was `lost` (negative where it gained), with the ends of a 95 % interval.

    `p` is that of a one-sided test for a loss, corrected for all cells (Holm). Where nothing can be said, `missing`
    says why, and the numbers are None.
    """

    where: str
    before: float | None = None
    after: float | None = None
    lost: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    missing: str | None = None

    @property
    def status(self) -> Literal["lost", "gained", "same", "undecided"]:
        """``lost`` where the loss is significant; ``gained`` where the interval lies below no loss."""
        if self.missing is not None or self.p is None or self.high is None:
            return "undecided"
        return "lost" if self.p < 1 - CONFIDENCE else "gained" if self.high < 0 else "same"


@dataclass(frozen=True)
class Comparison:
    """All cells of the entry against a `baseline`, as it was named."""

    baseline: str
    entry: str
    cells: tuple[Moved, ...]


Key = tuple[str, ...]
"""A cell but for its defense and seed: what must be the same on both sides."""


def refuse_other(before: Sequence[Record], asked: Sequence[Asked], entry: str, name: str) -> str:
    """The label of the protection in the baseline `before`, called `name`, that the defense labelled `entry` is
    compared with: the same, or the only one there is.

    Raises `UsageError` where the baseline has none, or asks something else than the cells `asked`: another protocol,
    suite or data.
    """
    was = _entry(before, entry, name)
    versions = {record.protocol_version for record in before}
    if versions != {PROTOCOL_VERSION}:
        listed = " and ".join(map(str, sorted(versions)))
        raise UsageError(
            f"baseline {name} was made under protocol version {listed}, and this arena has {PROTOCOL_VERSION}: make "
            "the baseline anew with it"
        )
    there = {_key(record): record for record in before if record.defense.label == was}
    wanted = {_key(one): one for one in asked if one.defense.label == entry}
    for key, one in wanted.items():
        if key not in there:
            raise UsageError(_difference(one, [r for k, r in there.items() if k not in wanted], name))
    return was


def compare(
    before: Sequence[Record], after: Sequence[Record], asked: Sequence[Asked], was: str, entry: str, name: str
) -> Comparison:
    """Hold every cell of the defense labelled `entry`, of all that were `asked`, against what the defense labelled
    `was` has in the baseline `before`, called `name`.

    What is compared is the paired drop: accuracy on clean data minus accuracy on the release, both put through the
    attack. The loss is the difference of both drops on the same seeds and test items, and is tested as
    `arena.score.statistics` says.
    """
    old, new = _sides(before, was), _sides(after, entry)
    wanted = {_key(one): one for one in asked if one.defense.label == entry}
    cells = [_moved(_where(one), old.at(key), new.at(key)) for key, one in wanted.items()]
    return Comparison(name, was, tuple(_holm(cells)))


@dataclass(frozen=True)
class _Sides:
    """Records by cell and seed: of the entry, and of the clean control."""

    own: Mapping[Key, Mapping[int, Record]]
    clean: Mapping[Key, Mapping[int, Record]]

    def at(self, key: Key) -> dict[int, tuple[Bits, Bits]]:
        """Item bits of control and entry by seed, of those that are done."""
        clean, own = self.clean.get(key[:-1], {}), self.own.get(key, {})
        return {
            seed: (control.outcome.unpack(), record.outcome.unpack())
            for seed, record in own.items()
            if record.outcome is not None and (control := clean.get(seed)) is not None and control.outcome is not None
        }


def _sides(records: Sequence[Record], entry: str) -> _Sides:
    own: dict[Key, dict[int, Record]] = {}
    clean: dict[Key, dict[int, Record]] = {}
    for record in records:
        if record.defense.id == CONTROL:
            clean.setdefault(_key(record)[:-1], {})[record.seed] = record
        elif record.defense.label == entry:
            own.setdefault(_key(record), {})[record.seed] = record
    return _Sides(own, clean)


def _key(asked: Asked) -> Key:
    """What a cell asks beside its defense and seed; the budget comes last, since the control has none."""

    def plugin(reference: Any) -> str:
        known = {"id", "version", "config", "fingerprint"}
        return digest_of(reference.model_dump(mode="json", include=known))

    data = asked.dataset.model_dump(
        mode="json", include={"id", "version", "config", "train", "auxiliary", "test", "seed"}
    )
    attack = "+".join(plugin(part) for part in asked.attack.parts)
    budget = asked.budget
    return (
        digest_of({**data, "fingerprint": asked.dataset.fingerprint}),
        plugin(asked.model),
        plugin(asked.recipe),
        attack,
        f"{asked.auxiliary:g}",
        f"{budget.norm} {budget.image:g} {budget.text}",
    )


def _where(asked: Asked) -> str:
    names = (asked.model.id, asked.dataset.id, asked.recipe.label, asked.attack.label)
    return " · ".join((*names, bound_text(asked.budget.norm, asked.budget.image)))


def _entry(records: Sequence[Record], entry: str, name: str) -> str:
    """The label of the defense in the baseline that is compared: the same one, else the only one there is."""
    labels = list(dict.fromkeys(r.defense.label for r in records if r.defense.id not in CONTROLS))
    if entry in labels:
        return entry
    if len(labels) == 1:
        return labels[0]
    if not labels:
        raise UsageError(f"baseline {name} has no record of a protection: name records that `arena stress` made")
    raise UsageError(
        f"baseline {name} has no record of {shortened(entry, 100)!r}{near_misses(entry, labels)}, and several of other "
        f"protections ({shortened(', '.join(labels), 400)}): name records that have one"
    )


def _difference(wanted: Asked, others: Sequence[Record], name: str) -> str:
    """What is different, in one paragraph."""
    remedy = "only the same suite on the same data can be compared: make the baseline anew with it"
    fields = ("dataset", "model", "recipe", "attack", "auxiliary clean data", "budget")
    key = _key(wanted)
    near = max(others, key=lambda r: sum(a == b for a, b in zip(_key(r), key, strict=True)), default=None)
    what = "no such cell"
    if near is not None:
        differ = [field for field, a, b in zip(fields, _key(near), key, strict=True) if a != b]
        what = f"one whose {', '.join(differ)} {'is another' if len(differ) == 1 else 'are others'}"
    return f"baseline {name} has no record of {_where(wanted)} but {what}: {remedy}"


def _moved(
    where: str,
    old: Mapping[int, tuple[Bits, Bits]],
    new: Mapping[int, tuple[Bits, Bits]],
) -> Moved:
    seeds = sorted(set(old) & set(new))
    if len(seeds) < LEAST_SEEDS:
        return Moved(where, missing=f"{len(seeds)} seeds are done on both sides, of at least {LEAST_SEEDS}")
    # Per seed and item, 1 where the control is right and the entry is not: what the protection took.
    before, after = (
        np.stack([clean.astype(np.int8) - own for clean, own in (side[seed] for seed in seeds)]) for side in (old, new)
    )
    lost = Answers(before - after, (-2.0, 2.0))
    found = lost.estimate()
    return Moved(
        where, float(before.mean()), float(after.mean()), lost.mean, found.low, found.high, lost.error.tail(lost.mean)
    )


def _holm(cells: Sequence[Moved]) -> list[Moved]:
    """The cells with p values that hold for all of them together."""
    return [replace(cell, p=p) for cell, p in zip(cells, holm([cell.p for cell in cells]), strict=True)]
