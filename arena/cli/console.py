"""Where commands write, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def stdout() -> Console:
    """Results go here."""
    from rich.console import Console

    return Console()


def stderr() -> Console:
    """Errors and progress go here."""
    from rich.console import Console

    return Console(stderr=True)


def plain(text: str) -> Text:
    """A text that is not read as markup."""
    from rich.text import Text

    return Text(text)
