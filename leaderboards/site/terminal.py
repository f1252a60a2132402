"""A board's rankings for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from leaderboards.site.numbers import DASH, Value
from leaderboards.site.views import Ranking, compose

if TYPE_CHECKING:
    from leaderboards.tables.board import Board


def table(board: Board) -> Table:
    """All rankings, one below the other."""
    page = compose(board)
    shown = Table.grid(padding=(0, 0, 1, 0))
    for section in page.sections:
        shown.add_row(Text(f"{page.suite}: {section.title}\n", style="bold").append(section.headline, style="not bold"))
        for ranking in section.rankings:
            shown.add_row(_ranking(ranking))
    shown.add_row(Text("95 % intervals; defenses of one group cannot be told apart", style="dim"))
    return shown


def _ranking(ranking: Ranking) -> Table:
    shown = Table(title=ranking.caption, title_justify="left", title_style="dim")
    shown.add_column("group", justify="right")
    shown.add_column("defense", overflow="fold")
    for name in ("robust protection", "best attack", "protection", "retention"):
        shown.add_column(name, overflow="fold")
    for rank in ranking.rows:
        values = (_text(rank.robust), rank.attack, _text(rank.protection), _text(rank.retention))
        shown.add_row(Text(rank.group), Text(rank.defense), *(Text(value) for value in values))
    return shown


def _text(value: Value) -> str:
    return DASH if value.undefined else str(value)
