"""What is said of a column of a board's tables, and of a field of a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal["text", "number", "whole number", "true or false"]
Frame = Literal["cells", "ranking", "failures", "power"]

FRAMES: dict[Frame, str] = {
    "cells": "One row a combination, over its seeds; also what the files `SUITE.csv` and `SUITE.parquet` hold.",
    "ranking": (
        "One row a defense, for each dataset, model, budget and share of clean data that the attacker has at most, "
        "best first."
    ),
    "failures": "One row a record that failed.",
    "power": "One row a dataset and model: how small a difference its cells can show.",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the tables named `frames`.

    `unit` has the range where there is one. `undefined` says when a value is null; it is empty where none ever is.
    `better` is what the owner of the data wishes for; None where it says nothing about the protection. `reasons` are
    what ``NAME_undefined`` may say, or begin with, and are there for scores alone: only these have an interval.
    """

    name: str
    frames: tuple[Frame, ...]
    type: Type
    unit: str
    meaning: str
    undefined: str = ""
    better: Literal["higher", "lower"] | None = None
    reasons: tuple[str, ...] = ()

    @property
    def is_score(self) -> bool:
        """Whether the column has an interval, a number of seeds and a reason beside it."""
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a part of a record; `type` is in the words of the page, the rest is as in `Column`."""

    name: str
    type: str
    unit: str
    meaning: str
    undefined: str = ""
