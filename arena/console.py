"""A console that prints text as it is: nothing in it is taken for markup, emoji codes or control codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType
from rich.text import Text

from arena.text import printable


class PlainConsole(Console):
    """Labels, ids, paths and errors may hold anything. What is to be styled is a `rich.text.Text` with a style; control
    codes are those of rich alone."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False, **options)

    def render_str(self, text: str, *, style: StyleType = "", **options: Any) -> Text:
        return super().render_str(printable(text), style=style, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
