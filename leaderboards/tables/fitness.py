"""Whether a task can tell protections apart, by its controls alone: the bars of ``leaderboards/bars.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from arena.records.schema import Asked
from arena.score.cells import CLEAN, ZERO_SHOT, Cells, Place
from arena.score.statistics import NO_CONTROL, Estimate
from leaderboards.tables.collect import Group, Protection

FILE = Path(__file__).parents[1] / "bars.yaml"

_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Band(_Part):
    """Accuracy after fine-tuning on clean data: `least` to learn something, `most` so that there is room above."""

    least: _Share
    most: _Share


class CostBar(_Part):
    """What an attack may cost on clean data at most, with these `settings` where any are named; `why` says, by the id
    of a recipe, what is known of one that misses it."""

    attack: str
    settings: dict[str, Any] = {}
    most: _Share
    why: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The attack, with the settings that are named."""
        listed = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.attack} ({listed})" if listed else self.attack

    def is_of(self, asked: Asked) -> bool:
        """Whether it is about a cell's attack; one of several parts has none of its own."""
        parts = asked.attack.parts
        return len(parts) == 1 and parts[0].id == self.attack and self.settings.items() <= parts[0].settings.items()


class Bars(_Part):
    """The bars of tasks with these `models`, by id."""

    models: list[str]
    accuracy: Band
    costs: list[CostBar]


@cache
def bars() -> Bars:
    """The bars of the arena's own tasks."""
    return Bars.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class LeftOut:
    """An attack that costs too much on clean data, under one recipe, to be counted among what an attacker chooses."""

    attack: str
    recipe: str
    cost: Estimate
    bar: CostBar

    @property
    def reason(self) -> str:
        """Why, in a clause."""
        assert self.cost.value is not None
        return f"it costs {100 * self.cost.value:.1f} points on clean data, of at most {100 * self.bar.most:.0f}"


class Fitness:
    """What the controls of one contest say of it: accuracies of the recipe that is best on clean data (`recipe`, None
    without a control), whether it is `unfit` and why, and which attacks are `left_out`."""

    def __init__(self, group: Group) -> None:
        zero_shot = group.zero_shot
        self._group = group
        self._cells = Cells(group.bits, None if zero_shot is None else zero_shot.unpack())
        self._judged = bool(group.records) and next(iter(group)).model.id in bars().models
        bare = [place for place in group.records if place[:2] == (CLEAN, CLEAN) and self._cells.bits[place]]
        self._bare = max(bare, key=lambda place: self._cells.answers(place, self._seeds(place)).mean, default=None)
        self.recipe = None if self._bare is None else self._bare.recipe

    @property
    def clean(self) -> Estimate:
        """Accuracy after fine-tuning on clean data."""
        return self._cells.accuracy(self._bare, NO_CONTROL)

    @property
    def gain(self) -> Estimate:
        """That minus zero-shot."""
        zero = ZERO_SHOT if self._cells.has_zero_shot else None
        return self._cells.difference(self._bare, zero, NO_CONTROL)

    @property
    def noise(self) -> Estimate:
        """The largest drop by random noise of any budget, without attack."""
        places = [place for place in self._group.records if self._is_noise(place)]
        drops = [self._cells.difference(self._bare, place, NO_CONTROL) for place in places]
        return max(drops, key=lambda drop: drop.value or 0.0, default=Estimate(undefined="no control of random noise"))

    @cached_property
    def unfit(self) -> str | None:
        """Why the task is not ranked; None where it is, and where no bars are held against it."""
        clean, band = self.clean.value, bars().accuracy
        if not self._judged or clean is None or band.least <= round(clean, 9) <= band.most:
            return None
        said = f"fine-tuning on clean data reaches {100 * clean:.1f} %"
        if clean < band.least:
            return f"{said}, of at least {100 * band.least:.0f} %, so that little is learned that could be denied"
        return f"{said}, of at most {100 * band.most:.0f} %, so that there is no room above"

    @cached_property
    def left_out(self) -> dict[tuple[str, str], LeftOut]:
        """By attack and recipe, as their labels are: those that miss their bar."""
        return {(one.attack, one.recipe): one for one in self._left_out()} if self._judged else {}

    def _left_out(self) -> Iterator[LeftOut]:
        for place, records in self._group.records.items():
            bar = next((b for b in bars().costs if b.is_of(next(iter(records.values())))), None)
            if place.defense != CLEAN or bar is None or not self._cells.bits[place]:
                continue
            clean = self._cells.find(CLEAN, CLEAN, place.recipe, place.auxiliary)
            cost = self._cells.difference(clean, place, NO_CONTROL)
            if cost.value is not None and round(cost.value, 9) > bar.most:
                yield LeftOut(place.attack, place.recipe, cost, bar)

    def _is_noise(self, place: Place) -> bool:
        if place.attack != CLEAN or place.recipe != self.recipe or not isinstance(place.defense, Protection):
            return False
        return bool(self._cells.bits[place]) and self._group.any_of(place.defense).defense.id == "random"

    def _seeds(self, place: Place) -> tuple[int, ...]:
        return self._cells.common(place)
