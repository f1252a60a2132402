"""Which stage a run starts next; its simulation asks the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from arena.engine.graph import Cell

SHORT = 60.0
"""Seconds up to which a release is no long one."""


def ranks(cells: Iterable[Cell], closure: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """The number of the first cell that needs a stage, by the stage's name; `closure` has what a cell needs, by the
    cell's key."""
    found: dict[str, int] = {}
    for number, cell in enumerate(cells):
        for name in closure[cell.key]:
            found.setdefault(name, number)
    return found


def place(kind: str, seconds: float, rank: int) -> tuple[float, int]:
    """Where a stage stands among the ready ones, releases or all others, least first: long releases by their length,
    since they are what chains wait for, after all short ones, of which most are controls, without which a board says
    nothing; the others in the suite's order, so that complete rows come early."""
    return (-seconds, rank) if kind == "release" and seconds > SHORT else (-math.inf, rank)


def crafts_next(releases: bool, others: bool, crafting: int, slots: int) -> bool:
    """Whether a free slot of so many crafts a release, where `crafting` do: half of them, and all that would idle."""
    return releases and (not others or crafting < slots // 2)
