"""A board as Markdown and as one self-contained HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from leaderboards.site.views import Page


def markdown(page: Page) -> str:
    """The page in GitHub-flavoured Markdown."""
    return fill("board.md.j2", page=page)


def fill(template: str, **values: object) -> str:
    """A Markdown template, without the blank lines that its blocks leave."""
    text = _environment().get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html(page: Page) -> str:
    """The page as one HTML file that loads nothing from anywhere."""
    return _environment().get_template("board.html.j2").render(page=page)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leaderboards.site"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": _plain, "row": _row}
    return environment


def _plain(value: Any) -> str:
    """Text that Markdown shows as it is, in one table cell."""
    text = escape(" ".join(str(value).split()), quote=False)  # a quote as an entity would get its # escaped below
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)


def _row(values: Iterable[Any]) -> str:
    return "| " + " | ".join(_plain(value) for value in values) + " |"
