"""How many of a number of things a share of them is.

The product of two floats may lie beside the whole number that is meant: 0.07 * 100 is 7.000000000000001 and 0.29 * 100
is 28.999999999999996. A share is therefore taken as the decimal that it is written as.
"""

from __future__ import annotations

import math
from fractions import Fraction


def at_least(share: float, count: int) -> int:
    """``ceil(share * count)``, of the decimal that `share` is written as: at_least(0.07, 100) is 7."""
    return math.ceil(_exact(share) * count)


def at_most(share: float, count: int) -> int:
    """``floor(share * count)``, of the decimal that `share` is written as: at_most(0.29, 100) is 29."""
    return math.floor(_exact(share) * count)


def _exact(share: float) -> Fraction:
    return Fraction(repr(float(share)))
