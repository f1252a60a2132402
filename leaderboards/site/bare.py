"""Rankings without attacks for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from leaderboards.site.rankings import BareRanking
from leaderboards.site.text import printable
from leaderboards.site.views import compose
from leaderboards.tables.coverage import NO_ATTACK

if TYPE_CHECKING:
    from leaderboards.tables.board import Board


def tables(board: Board) -> Iterator[Table]:
    """One table for each ranking of a board in which no attack was tried."""
    for section in compose(board).sections:
        for ranking in section.bare:
            yield _table(section.title, ranking)


def _table(title: str, ranking: BareRanking) -> Table:
    caption = _plain(title).append("\n").append_text(_plain(ranking.caption))
    shown = Table(title=caption, title_justify="left", title_style="dim")
    shown.add_column("group", justify="right")
    for name in ("defense", f"protection, {NO_ATTACK}", *(["best recipe"] if ranking.recipes else [])):
        shown.add_column(name, overflow="fold")
    for rank in ranking.rows:
        values = (rank.group, rank.defense, str(rank.protection), *([rank.recipe] if ranking.recipes else []))
        shown.add_row(*map(_plain, values))
    return shown


def _plain(text: str) -> Text:
    return Text(printable(" ".join(text.split())))
