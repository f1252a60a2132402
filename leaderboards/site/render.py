"""A board as Markdown and as one self-contained HTML page, and the environment of all templates.

Text of records enters Markdown through the filters ``md`` (a run of text) and ``row`` (the cells of a table's row), and
HTML through autoescaping. Both show control characters as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import jinja2

from leaderboards.site.text import printable
from leaderboards.tables.collect import counted

if TYPE_CHECKING:
    from leaderboards.site.views import Page

_BLOCK = re.compile(r"^(?:[-+](?=\s|$)|\d+(?=[.)](?:\s|$)))")
"""What would begin a list at the start of a line; stars and hashes are escaped everywhere."""


def markdown(page: Page) -> str:
    """The page in GitHub-flavoured Markdown."""
    return fill("board.md.j2", page=page)


def fill(template: str, **values: object) -> str:
    """A Markdown template, without the blank lines that its blocks leave."""
    text = environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html(page: Page) -> str:
    """The page as one HTML file that loads nothing from anywhere."""
    return environment().get_template("board.html.j2").render(page=page)


@cache
def environment() -> jinja2.Environment:
    """What templates and findings are filled in with; a name that is not defined is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("leaderboards.site"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"md": _plain, "row": _row, "counted": counted}
    return made


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _plain(value: Any) -> str:
    """Text that Markdown shows as it is, in one table cell or on a line of its own."""
    text = printable(" ".join(str(value).split()))
    text = escape(text, quote=False)  # a quote as an entity would get its # escaped below
    text = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", text)
    return _BLOCK.sub(lambda start: start[0] + "\\" if start[0].isdigit() else "\\" + start[0], text)


def _row(values: Iterable[Any]) -> str:
    return "| " + " | ".join(_plain(value) for value in values) + " |"
