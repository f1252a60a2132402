"""The reference pages that are generated: every field of a suite file, every plugin that comes with the arena.

`make docs` writes them, a test keeps them true.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from arena.budget import Budget
from arena.plugins.outline import about, facts
from arena.plugins.registry import BASES, OURS, Registry
from arena.plugins.settings import describe_setting
from arena.suites.parts import (
    AttackUse,
    DatasetUse,
    DefenseUse,
    Embedding,
    Limits,
    Meaning,
    PluginUse,
    RecipeUse,
    Skip,
    Tiny,
)
from arena.suites.schema import Suite

NOTHING = "\N{EN DASH}"

_PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The suite", Suite),
    ("A model, a surrogate", PluginUse),
    ("A dataset", DatasetUse),
    ("A defense", DefenseUse),
    ("An attack", AttackUse),
    ("A recipe", RecipeUse),
    ("A budget", Budget),
    ("`skip`", Skip),
    ("`meaning`", Meaning),
    ("An embedding", Embedding),
    ("`limits`", Limits),
    ("`tiny`", Tiny),
)


def pages(registry: Registry) -> dict[Path, str]:
    """The pages by their place in a checkout."""
    return {Path("arena/SUITES.md"): suite_page(), Path("arena/CATALOGUE.md"): plugin_page(registry)}


def suite_page() -> str:
    """Every field of a suite file, from its schema."""
    lines = [
        "# A suite file, field by field",
        "",
        "Made by `make docs` from `arena/suites/schema.py`. A suite is YAML, UTF-8, without aliases; every combination",
        "of its lists is a cell, once a seed. A plugin is named by its id alone, or by a mapping. Unknown fields are",
        "refused, with the line that they are in. `arena plan FILE` checks a suite, `arena run FILE` computes it.",
    ]
    for title, model in _PARTS:
        about = inspect.cleandoc(model.__doc__ or "")
        lines += ["", f"## {title}", "", *about.split("\n"), "", "| field | type | default | |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items()]
    return "\n".join(lines) + "\n"


def plugin_page(registry: Registry) -> str:
    """Every plugin that comes with the arena, with its settings."""
    lines = [
        "# The plugins that come with the arena",
        "",
        "Made by `make docs` from the plugins themselves. `arena list` has those of other packages too, and",
        "`arena show ID` the ranges of settings. A setting marked *runtime* changes no result and is no part of what a",
        "cell is.",
    ]
    for kind in BASES:
        budget = ["budget"] if kind == "defense" else []
        columns = ["id", "version", "what", *budget, "needs", "source", "settings"]
        lines += ["", f"## {kind.capitalize()}s", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for entry in registry.entries(kind):
            if entry.origin.package != OURS:
                continue
            cls, said = entry.load(), facts(entry)
            settings = ", ".join(_setting(name, field) for name, field in cls.Config.model_fields.items())
            own = [said.budget] if budget else []
            texts = [about(entry), *own, ", ".join(said.needs), said.source, settings]
            cells = [f"`{entry.id}`", cls.version, *(_cell(text) or NOTHING for text in texts)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _setting(name: str, field: FieldInfo) -> str:
    about = describe_setting(name, field)
    default = "" if about["default"] is None else f" = {about['default']}"
    runtime = (
        " *runtime*" if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("runtime") else ""
    )
    return f"`{name}{default}`{runtime}"


def _row(name: str, field: FieldInfo) -> str:
    default = "must be given" if field.is_required() else _default(field)
    return f"| `{name}` | {_cell(_type(field.annotation))} | {_cell(default)} | {_cell(field.description or '')} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, tuple):
        return f"`[{', '.join(_shown(each) for each in value)}]`"
    return f"`{value!r}`" if value not in ("", None, {}) else NOTHING


def _shown(value: Any) -> str:
    if isinstance(value, PluginUse):
        return value.id
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{k}: {v}" for k, v in value.model_dump().items()) + "}"
    return str(value)


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "nothing"}


def _type(annotation: Any) -> str:
    """A type in a reader's words."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is tuple:
        return f"list of: {_type(parts[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return dict(_named())[annotation]
    return _NAMES.get(annotation, str(annotation))


def _named() -> Iterator[tuple[type[BaseModel], str]]:
    for title, model in _PARTS:
        name = title.replace("`", "").removeprefix("The ").removeprefix("An ").removeprefix("A ")
        yield model, "plugin" if model is PluginUse else name


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write(folder: Path, wanted: Iterable[tuple[Path, str]]) -> None:
    """Write pages below the root of a checkout."""
    for path, text in wanted:
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(), pages(Registry()).items())
