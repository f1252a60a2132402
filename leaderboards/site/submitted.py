"""What others submitted, and the history of robust protection that came of it."""

from __future__ import annotations

from collections.abc import Sequence

from arena.records.submissions import Change, Number, Shown
from leaderboards.site.listings import Listing
from leaderboards.site.numbers import DASH, budget_text, points
from leaderboards.tables.collect import counted


def authors(submissions: Sequence[Shown]) -> dict[str, str]:
    """Who submitted an attack that is on the board, by its label."""
    attacks = (one for one in submissions if one.submission.entry.kind == "attack" and one.records)
    return {one.submission.entry.label: one.submission.author for one in attacks}


def entries(submissions: Sequence[Shown]) -> Listing:
    """Every submission: who, what, from where, and how it was checked."""
    rows = []
    for one in submissions:
        line = one.submission
        if one.records and line.entry.kind == "attack":
            on_board = f"on {', '.join(dict.fromkeys(record.defense.label for record in one.records))}"
        else:
            on_board = counted(len(one.records), "cell") if one.records else "none of its cells: the suite has changed"
        rows.append(
            [
                line.created[:10],
                f"{line.entry.kind} {line.entry.label}",
                line.author,
                on_board,
                f"{line.checked.agreeing} of {line.checked.of} cells",
                ", ".join(dict.fromkeys(f"{part.package} {part.package_version}" for part in line.entry.parts)),
                line.code,
                line.bundle[:12],
            ]
        )
    return Listing(["date", "entry", "author", "on this board", "computed again", "package", "code", "bundle"], rows)


def history(submissions: Sequence[Shown]) -> Listing:
    """How submissions changed robust protection, oldest first."""
    rows = [
        [
            line.created[:10],
            f"{change.defense} ({change.surrogates})" if change.surrogates else change.defense,
            _where(change),
            DASH if change.before is None else _said(change.before),
            _said(change.after),
            change.attack or DASH,
            f"{line.entry.kind} {line.entry.label} by {line.author}",
        ]
        for line in (one.submission for one in submissions)
        for change in line.changes
    ]
    return Listing(["date", "defense", "where", "before, %", "after, %", "best attack then", "changed by"], rows)


def _where(change: Change) -> str:
    b = change.budget
    budget = budget_text(b.norm, b.image, b.text, b.forbid_answer_words)
    clean = f", {100 * change.auxiliary:g} % clean" if change.auxiliary else ""
    clean += ", in-domain" if change.in_domain else ""
    return f"{change.dataset} · {change.model} · {budget}{clean}"


def _said(number: Number) -> str:
    row = {f"n_{name}": value for name, value in number.model_dump().items()}
    return str(points({**row, "n": number.value, "n_seeds": None}, "n"))
