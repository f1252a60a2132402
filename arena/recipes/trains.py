"""Which parts of a model the shipped recipes train, for estimates of what a suite will take."""

from __future__ import annotations

from typing import Literal

Part = Literal["adapters", "projector", "all"]

TRAINS: dict[str, frozenset[Part]] = {
    "lora": frozenset({"adapters"}),
    "dora": frozenset({"adapters"}),
    "qlora": frozenset({"adapters"}),
    "projector": frozenset({"projector"}),
    "projector-lora": frozenset({"adapters", "projector"}),
    "full": frozenset({"all"}),
}
"""By the recipe's id. A recipe from elsewhere says so itself, in a class attribute `trains`."""
