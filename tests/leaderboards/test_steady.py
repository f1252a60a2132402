"""The same records make the same files, in whatever order a processor adds numbers up."""

from __future__ import annotations

import math

import pytest
from synthetic import record

from leaderboards.site.findings import decimals
from leaderboards.site.numbers import points
from leaderboards.site.text import steady
from leaderboards.tables.board import board, rounded

APART = [(0.1 + 0.2, 0.3), (0.36249999999999996, 0.3625), (-1e-17, 0.0), (1.0000000000000002, 1.0)]
"""Numbers that are one, added up otherwise."""


@pytest.mark.parametrize(("one", "other"), APART)
def test_last_digits_make_no_difference(one: float, other: float) -> None:
    assert math.copysign(1, steady(one)) == math.copysign(1, steady(other)) and steady(one) == steady(other)
    rows = [{"score": value, "score_low": None, "score_high": None, "score_seeds": 1} for value in (one, other)]
    assert str(points(rows[0], "score")) == str(points(rows[1], "score"))
    assert decimals(100 * one, 1) == decimals(100 * other, 1)
    assert rounded(rows[:1]) == rounded(rows[1:])


def test_other_numbers_stay_apart() -> None:
    assert steady(0.123456789) == 0.123456789
    assert rounded([{"drop_p": 3.4049776902e-79, "name": "x", "seeds": 5, "low": None}]) == [
        {"drop_p": 3.40498e-79, "name": "x", "seeds": 5, "low": None}
    ]


def test_boards_are_steady() -> None:
    cells = [(0.9, "none", "none"), (0.3, "em", "none"), (0.9, "none", "jpeg"), (0.7, "em", "jpeg")]
    made = board(record(p, d, a, seed) for p, d, a in cells for seed in range(3))
    for table in (made.cells, made.ranking, made.power):
        for name in table.columns:
            values = [v for v in table[name] if isinstance(v, float) and not math.isnan(v)]
            assert all(v == (float(f"{v:.6g}") if name.endswith("_p") else round(v, 10)) for v in values), name
    assert (made.cells["drop_p"] > 0).all()
