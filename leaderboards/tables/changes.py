"""What a submission changes: the robust protection of entries on two boards."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from arena.records.schema import BudgetRef
from arena.records.submissions import Change, Number
from leaderboards.site.numbers import Row, budget_of, rows_of

if TYPE_CHECKING:
    from leaderboards.tables.board import Board


def changes(before: Board, after: Board) -> list[Change]:
    """The entries whose robust protection is another one on the board `after`, or that are only there; the controls are
    no entries."""
    old = {_key(row): row for row in rows_of(before.ranking)}
    found = []
    for row in rows_of(after.ranking):
        known = old.get(_key(row))
        if row["control"] or (known is not None and _number(known) == _number(row)):
            continue
        norm, image, text, rule = budget_of(row)
        found.append(
            Change(
                dataset=row["dataset"],
                model=row["model"],
                budget=BudgetRef(norm=norm, image=image, text=text, forbid_answer_words=rule),
                auxiliary=row["auxiliary"],
                in_domain=row["in_domain"],
                defense=row["defense"],
                surrogates=row["surrogates"],
                before=None if known is None else _number(known),
                after=_number(row),
                attack=row["best_attack"],
            )
        )
    return found


def _key(row: Row) -> Hashable:
    names = ("dataset", "model", "auxiliary", "in_domain", "defense", "surrogates")
    return *(row[name] for name in names), budget_of(row)


def _number(row: Row) -> Number:
    name = "robust_protection"
    return Number(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"], undefined=row[f"{name}_undefined"])
