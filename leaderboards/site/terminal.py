"""A board's rankings for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from leaderboards.site.numbers import DASH, Value
from leaderboards.site.rankings import WORST_CASE, Ranking
from leaderboards.site.text import printable
from leaderboards.site.views import compose

if TYPE_CHECKING:
    from leaderboards.tables.board import Board


def table(board: Board) -> Table:
    """All rankings, one below the other."""
    page = compose(board)
    shown = Table.grid(padding=(0, 0, 1, 0))
    for section in page.sections:
        headline = _plain(section.headline)
        headline.stylize("not bold")
        shown.add_row(_plain(f"{page.suite}: {section.title}", style="bold").append("\n").append_text(headline))
        for ranking in section.rankings:
            shown.add_row(_ranking(ranking))
    shown.add_row(Text("95 % intervals; defenses of one group cannot be told apart", style="dim"))
    return shown


def _ranking(ranking: Ranking) -> Table:
    shown = Table(title=_plain(ranking.caption), title_justify="left", title_style="dim")
    shown.add_column("group", justify="right")
    shown.add_column("defense", overflow="fold")
    worst = [WORST_CASE] if ranking.chooser else []
    for name in (ranking.title, *worst, "best attack", "protection", "retention"):
        shown.add_column(name, overflow="fold")
    for rank in ranking.rows:
        values = (rank.group, rank.defense, _text(rank.robust), *(_text(rank.worst) for _ in worst), rank.attack)
        shown.add_row(*(_plain(text) for text in (*values, _text(rank.protection), _text(rank.retention))))
    return shown


def _plain(text: str, style: str = "") -> Text:
    """Text of a record as it is: no markup, no escape sequences, on one line."""
    return Text(printable(" ".join(text.split())), style=style)


def _text(value: Value) -> str:
    return DASH if value.undefined else str(value)
