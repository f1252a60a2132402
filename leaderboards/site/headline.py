"""What a board says first of each section: what the first entry leaves to an attacker."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from arena.score.cells import CLEAN
from arena.score.statistics import CONFIDENCE, holm
from leaderboards.site.numbers import DASH, Row, knowledge, share, significant
from leaderboards.tables.coverage import NO_ATTACK, WITHHELD


def headline(rows: Sequence[Row], authors: Mapping[str, str]) -> str:
    """What the first entry that is complete leaves to an attacker; `rows` are best first, `authors` those of submitted
    attacks."""
    entries = [row for row in rows if not row["control"]]
    if not entries:
        return "No protection was entered."
    name = "robust_protection" if entries[0]["attacked"] else "protection"
    top = next((row for row in entries if row[name] is not None), None)
    if top is None:
        return _nothing(entries, name)
    if top["unfit"]:
        return f"Not ranked, since the task is unfit: {top['unfit']}."
    corrected = dict(zip(map(id, entries), holm([row[f"{name}_p"] for row in entries]), strict=True))
    left, shown = share(top, name), significant(top, name) and _below(corrected[id(top)])
    if name == "protection":
        denied = f"denies {left} of the gain (protection, {NO_ATTACK}{_best_recipe(top)})."
        said = f"{top['defense']} {denied}"
        if not shown:
            said = f"No protection is shown to hold: the first, {top['defense']}, {denied}"
    else:
        against = f"the best attack on it is {choice(top, authors)}"
        to = "in the worst case"
        if top["chooser"]:
            to = f"to an attacker who chooses by {top['chooser']}"
            against = f"in the worst case {share(top, 'worst_case_protection')}, where {against}"
        said = f"{top['defense']} denies {left} of the gain {to}; {against}."
        if not shown:
            said = f"No protection is shown to hold: the first, {top['defense']}, leaves {left} {to}; {against}."
    names = _names([row for row in entries if withheld(row, name)], entries)
    return f"{said} Not ranked, since cells failed or have no record: {names}." if names else said


def _below(p: float | None) -> bool:
    return p is not None and p < 1 - CONFIDENCE


def _nothing(entries: Sequence[Row], name: str) -> str:
    """Why no entry can be said to protect."""
    reasons: dict[str, list[Row]] = defaultdict(list)
    for row in entries:
        reasons[row[f"{name}_undefined"]].append(row)
    complete = [reason for reason in reasons if not reason.startswith(WITHHELD)]
    if len(reasons) == len(complete) == 1:
        return f"Nothing can be said about protection: {complete[0]}."
    listed = [f"{_names(rows, entries)}: {reason.removeprefix(WITHHELD)}" for reason, rows in reasons.items()]
    since = "" if complete else ", since no entry is complete"
    return f"Nothing can be said about protection{since}. {'; '.join(listed)}."


def _names(rows: Sequence[Row], entries: Sequence[Row]) -> str:
    """Names of entries, with what they were crafted on where that alone tells them from others."""
    used = Counter(row["defense"] for row in entries)
    return ", ".join(f"{r['defense']}, {knowledge(r)}" if used[r["defense"]] > 1 else r["defense"] for r in rows)


def withheld(row: Row, name: str) -> bool:
    return (row[f"{name}_undefined"] or "").startswith(WITHHELD)


def _best_recipe(row: Row) -> str:
    return f"; the best recipe is {row['best_recipe']}" if row["recipes"] > 1 else ""


def choice(row: Row, authors: Mapping[str, str]) -> str:
    if row["best_attack"] is None:
        return DASH
    attack = "no attack" if row["best_attack"] == CLEAN else row["best_attack"]
    by = f" by {authors[attack]}" if attack in authors else ""
    return f"{attack}{by}, {row['best_recipe']}"
