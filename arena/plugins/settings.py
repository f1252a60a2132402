"""A plugin's settings beyond what pydantic says of a field: marks that the arena reads, and how one is displayed."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

RUNTIME, LATER, DRY_RUN = "runtime", "later", "dry_run"


def setting(
    default: Any = ..., *, runtime: bool = False, later: bool = False, dry_run: Any = None, **field: Any
) -> Any:
    """A pydantic field with marks.

    `runtime` settings change no result (a device, a batch size of inference, a path whose content is fingerprinted):
    they are no part of what a cell is. A setting marked `later` was added when there were records already; left at its
    default it is no part of it either, so these stay what they are. `dry_run` is its value under ``--tiny``. The rest
    goes to `pydantic.Field`.
    """
    marks: dict[str, Any] = {name: True for name, wanted in ((RUNTIME, runtime), (LATER, later)) if wanted}
    if dry_run is not None:
        marks[DRY_RUN] = dry_run
    return Field(default, json_schema_extra=marks or None, **field)


def mark(field: FieldInfo, name: str) -> Any:
    """What a field's mark of a name says; None without it."""
    marks = field.json_schema_extra
    return marks.get(name) if isinstance(marks, dict) else None


_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}
_LENGTHS = {"min_length": "at least {} long", "max_length": "at most {} long", "pattern": "matching {}"}


def describe_setting(name: str, about: FieldInfo) -> dict[str, str | None]:
    """A setting for display: name, type, default (None: it must be given), range and description."""
    choices = typing.get_args(about.annotation) if typing.get_origin(about.annotation) is Literal else ()
    limits = [f"one of {', '.join(map(repr, choices))}"] if choices else []
    for rule in about.metadata:
        limits += [f"{sign} {getattr(rule, key)}" for key, sign in _COMPARISONS.items() if hasattr(rule, key)]
        limits += [text.format(getattr(rule, key)) for key, text in _LENGTHS.items() if getattr(rule, key, None)]
    kind = type(choices[0]).__name__ if choices else inspect.formatannotation(about.annotation)
    default = "computed" if about.default_factory is not None else repr(about.default)
    return {
        "name": name,
        "type": kind,
        "default": None if about.is_required() else default,
        "range": " and ".join(limits),
        "description": about.description or "",
    }
