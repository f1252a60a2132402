"""The scores that a requirement can name: columns of a board (`leaderboards.columns`), and what each is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from arena.errors import UsageError
from arena.plugins.registry import near_misses
from arena.text import shortened
from leaderboards.columns.kind import Column
from leaderboards.columns.measures import COSTS, PEAK, STEALTH
from leaderboards.columns.scores import SCORES as WITH_INTERVAL

_CHOSEN = ("robust_", "worst_case_")
"""How the scores of attackers who choose begin."""
_ATTACK_NEEDED = (
    *("clean_attacked", "paired_drop", "attack_cost", "retention", "release_adds"),
    *("purify_seconds_per_sample", "purify_peak_memory_mb"),
)
_ATTACK_POSSIBLE = (
    *("accuracy", "drop", "protection", "over_random_words", "peak_accuracy"),
    *("finetune_seconds_per_sample", "finetune_peak_memory_mb"),
)


@dataclass(frozen=True)
class Score:
    """A column of a board's table `cells`, or where it is about all attacks together (`robust`) of `ranking`.

    `attack` is what a requirement without an attack in brackets is about: the cell without attack (``optional``), or
    nothing (``needed``); where it is ``never`` there are no brackets with an attack.
    """

    described: Column
    robust: bool
    attack: Literal["optional", "needed", "never"]

    @property
    def name(self) -> str:
        """What it is called in requirements, such as ``paired-drop``."""
        return self.described.name.removeprefix("stealth_").replace("_", "-")

    @property
    def column(self) -> str:
        """The column's name."""
        return self.described.name

    @property
    def unit(self) -> str:
        """The column's unit, without its range."""
        return self.described.unit.partition(",")[0]

    @property
    def interval(self) -> bool:
        """Whether the board has its 95 % interval."""
        return self.described.is_score


def _all() -> Iterator[Score]:
    for column in WITH_INTERVAL:
        if column.name.startswith(_CHOSEN) and "ranking" in column.frames:
            yield Score(column, True, "never")
    for column in (*WITH_INTERVAL, *PEAK, *STEALTH, *COSTS):
        if "cells" in column.frames and not column.name.startswith(_CHOSEN):
            possible: Literal["optional", "never"] = "optional" if column.name in _ATTACK_POSSIBLE else "never"
            yield Score(column, False, "needed" if column.name in _ATTACK_NEEDED else possible)


SCORES = {score.name: score for score in _all()}
"""All scores by name."""


def find_score(name: str) -> Score:
    """The score of a name, written with hyphens or with underscores, with or without ``stealth-`` before it. Raises
    `UsageError` for an unknown one."""
    plain = name.strip().lower().replace("_", "-").removeprefix("stealth-")
    if plain not in SCORES:
        raise UsageError(
            f"there is no score '{shortened(name.strip(), 100)}'{near_misses(plain, SCORES)} (scores: "
            f"{', '.join(SCORES)})"
        )
    return SCORES[plain]
