"""What training, release, scoring and splits do is pinned by a few cells of every family, recipe and kind of attack.

On a machine like the one that made ``golden.json`` all contents are the same. Elsewhere sums of floats are rounded
differently, and crafting amplifies that: there the splits and what integers make of them are the same, and so is the
first epoch's loss of cells in which nothing was crafted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from cells import FILE, compute, here, pinned

from arena.plugins.identity import PROTOCOL_VERSION
from arena.records.schema import Record

GOLDEN: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"cells": {}}

UNCRAFTED, INTEGER = ("none", "random", "lsp"), ("none", "jpeg", "punct")
"""Defenses and attacks whose bytes follow from no sum of floats."""

DECIDE = """
{label}: {what} came out otherwise than golden.json has it.

Decide what that is:
- a mistake: mend it; the committed records of this protocol were made by what the file pins;
- one plugin does otherwise on purpose: count up its `version`, and say so in CHANGELOG.md;
- training, release, scoring or the drawing of splits do otherwise on purpose: count up PROTOCOL_VERSION in
  arena/plugins/identity.py, which makes every cell another one, and say so in CHANGELOG.md.
In the last two cases write the file anew: python tests/golden/cells.py"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    return compute(tmp_path_factory.mktemp("golden"))


def test_the_file_is_of_this_protocol() -> None:
    assert GOLDEN["protocol_version"] == PROTOCOL_VERSION, (
        "PROTOCOL_VERSION was counted up: write golden.json anew with python tests/golden/cells.py"
    )


@pytest.mark.parametrize("label", GOLDEN["cells"])
def test_a_golden_cell_comes_out_as_it_did(label: str, records: dict[str, Record]) -> None:
    assert label in records, DECIDE.format(label=label, what="the cell is not planned any more, or under another label")
    before, now = GOLDEN["cells"][label], pinned(records[label])

    def same(what: str, one: Any, other: Any) -> None:
        assert one == other, DECIDE.format(label=label, what=what)

    same("what it asks", before["cell"], now["cell"])
    same("the training data", before["lineage"]["clean"], now["lineage"]["clean"])
    if here(records[label]) == GOLDEN["made_on"]:
        for name in before["lineage"]:
            same(f"the contents of its {name}", before["lineage"][name], now["lineage"][name])
        same("an answer", before["correct"], now["correct"])
    elif records[label].defense.id in UNCRAFTED and records[label].attack.id in INTEGER:
        same("its release", before["lineage"]["purified"], now["lineage"]["purified"])
        assert now["losses"][0] == pytest.approx(before["losses"][0], rel=1e-3), DECIDE.format(
            label=label, what="the first epoch's loss"
        )
        outcome = records[label].outcome
        assert outcome is not None
        then = outcome.model_copy(update={"correct": before["correct"]}).unpack()
        assert int((then != outcome.unpack()).sum()) <= 2, DECIDE.format(label=label, what="an answer")


def test_every_golden_cell_is_pinned(records: dict[str, Record]) -> None:
    assert set(records) == set(GOLDEN["cells"])


def test_the_cells_tell_something(records: dict[str, Record]) -> None:
    """Training moved every model, and cells that differ have different weights."""
    assert all(r.epochs[-1].loss != r.epochs[0].loss for r in records.values())
    right = [r.outcome.accuracy for r in records.values() if r.outcome is not None]
    assert sum(0 < accuracy < 1 for accuracy in right) > 12
    trained = {r.lineage.checkpoint for label, r in records.items() if label.startswith("recipes")}
    assert len(trained) == 6
