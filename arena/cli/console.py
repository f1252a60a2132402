"""Where commands write, and how: text is printed as it is, whatever it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def stdout() -> Console:
    """Results go here."""
    from arena.console import PlainConsole

    return PlainConsole()


def stderr() -> Console:
    """Errors and progress go here."""
    from arena.console import PlainConsole

    return PlainConsole(stderr=True)


def plain(text: str, style: str = "") -> Text:
    """A text as it is, for a place where rich is not asked by our consoles, or in a style."""
    from rich.text import Text

    from arena.text import printable

    return Text(printable(text), style=style, overflow="fold")


def table(*headers: str, right: int | None = None) -> Table:
    """A table without lines, whose cells wrap where they have no room and are never cut off. The columns from number
    `right` on are numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for number, header in enumerate(headers):
        made.add_column(header, overflow="fold", justify="right" if right is not None and number >= right else "left")
    return made
