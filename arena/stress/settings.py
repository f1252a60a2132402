"""``arena-stress.yaml``: what is held against which requirements. The command line has the same fields as options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from arena.budget import Budget
from arena.errors import UsageError
from arena.paths import is_file, is_folder
from arena.plugins.registry import near_misses
from arena.stress.requirements import Requirement, parse
from arena.suites.yaml_lines import Document, read_yaml
from arena.text import shortened

FILE = "arena-stress.yaml"
"""What is read where nothing else is named."""

SUITE = "ci"
"""The suite of whoever names none."""


class Settings(BaseModel):
    """What a file says; every field but the target may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, Field(min_length=1)] = Field(
        description="a folder that `arena protect` made, any folder of released pictures with their metadata, or the "
        "id of a defense"
    )
    config: dict[str, JsonValue] = Field(default_factory=dict, description="settings of a defense")
    originals: str | None = Field(
        default=None, description="of a folder: what it was made from, as `arena protect` takes it"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="of a folder: fields (question, answer, ...) with the column to take"
    )
    scoring: Literal["exact", "normalized", "choice"] = Field(
        default="normalized", description="of a folder: which answers count, see `imagefolder`"
    )
    budget: Budget | None = Field(
        default=None,
        description="what the protection may change; by default the suite's, of a folder that `arena protect` made its "
        "own",
    )
    test: int | None = Field(
        default=None,
        ge=1,
        description="of a folder: originals that are held out to score on; by default the folder `test` beside "
        "`train`, else a quarter",
    )
    suite: str = Field(default=SUITE, description="path of a suite file, or id of a shipped suite")
    requirements: tuple[str, ...] = Field(default=(), description="what must hold, such as `retention[jpeg]>=0.5`")
    compare: str | None = Field(
        default=None, description="baseline: a JSONL file of records, or a git revision whose code is run"
    )
    results: str | None = Field(default=None, description="JSONL file of the records")


@dataclass(frozen=True)
class Asked:
    """Settings with their requirements read, and where in a file these stand: `file` is None, and lines are 0, where
    there is no file."""

    settings: Settings
    requirements: tuple[Requirement, ...]
    file: Path | None = None
    lines: dict[str, int] = field(default_factory=dict)
    """By the requirement's name, and ``compare``."""


def read_file(path: Path) -> Asked:
    """A file's settings; names of files and folders in it are relative to where it lies. Raises `UsageError` naming
    file, line and field."""
    document = read_yaml(path)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        raise UsageError(_problem(error, document)) from None
    requirements: list[Requirement] = []
    lines = {"compare": document.line(("compare",))}
    for number, text in enumerate(settings.requirements):
        at = ("requirements", number)
        try:
            requirement = parse(text)
        except UsageError as error:
            raise UsageError(f"{document.where(at)}: {error}") from None
        if requirement.name in lines:
            raise UsageError(f"{document.where(at)}: it is already in line {lines[requirement.name]}: remove one")
        requirements.append(requirement)
        lines[requirement.name] = document.line(at)
    return Asked(_placed(settings, path.parent), tuple(requirements), path, lines)


def _placed(settings: Settings, folder: Path) -> Settings:
    """The settings, with names relative to a folder made such that they hold from here."""
    found: dict[str, Any] = {}
    for name in ("target", "originals", "suite", "compare"):
        value = getattr(settings, name)
        if value is not None and (is_folder(folder / value) or is_file(folder / value)):
            found[name] = str(folder / value)
    if settings.suite.endswith((".yaml", ".yml")):
        found["suite"] = str(folder / settings.suite)
    if settings.results is not None:
        found["results"] = str(folder / settings.results)
    return settings.model_copy(update=found)


def _problem(error: ValidationError, document: Document) -> str:
    first = min(error.errors(include_url=False), key=lambda e: document.line(e["loc"]))
    where, known = document.where(first["loc"]), list(Settings.model_fields)
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return f"{where}: there is no such field{near_misses(str(first['loc'][0]), known)} (fields: {', '.join(known)})"
    if first["type"] == "missing":
        return f"{where}: the field is missing"
    message = str(first["msg"]).removeprefix("Value error, ").replace("tuple", "list")
    if first["type"] == "model_type":
        message = f"Input should be a mapping of fields ({', '.join(known)})"
    given = "" if isinstance(first["input"], dict | list | tuple) else f", not {shortened(repr(first['input']), 200)}"
    return f"{where}: {message}{given}"
