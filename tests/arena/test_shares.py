"""Shares of a number of things, where floats would be off by one."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pytest

from arena.shares import at_least, at_most


def test_a_product_of_floats_beside_a_whole_number_is_that_number() -> None:
    assert 0.07 * 100 > 7 and at_least(0.07, 100) == 7
    assert 0.29 * 100 < 29 and at_most(0.29, 100) == 29


@pytest.mark.parametrize("count", [1, 16, 25, 36, 100, 144, 576, 1000])
def test_every_share_in_percent_is_exact(count: int) -> None:
    for percent in range(1, 101):
        exact = Fraction(percent, 100) * count
        assert (at_least(percent / 100, count), at_most(percent / 100, count)) == (ceil(exact), floor(exact))


def test_ends_and_small_shares() -> None:
    assert at_least(0.0, 5) == at_most(0, 5) == 0 and at_least(1, 5) == at_most(1.0, 5) == 5
    assert at_least(1e-9, 100) == 1 and at_most(1e-9, 100) == 0
