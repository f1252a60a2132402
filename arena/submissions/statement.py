"""The statement that an author signs off: a YAML file of which every field has to be filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from arena.errors import UsageError
from arena.files import write_atomically
from arena.paths import exists
from arena.plugins.registry import near_misses
from arena.suites.yaml_lines import Document, read_value, read_yaml
from arena.text import shortened

LIMIT = 64 * 2**10
"""Bytes of a statement, at most."""


def _said(value: object) -> object:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("it is empty: fill it in; where there is nothing to say, write `none`")
    return value.strip() if isinstance(value, str) else value


def _no(value: object) -> object:
    return "no" if value is False else value  # what YAML takes a bare `no` for


Text = Annotated[str, BeforeValidator(_said), Field(max_length=10_000)]


class Statement(BaseModel):
    """What an author says of an entry, and stands for. No field has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    author: Text = Field(max_length=200, description="Names, as the board is to print them.")
    contact: Text = Field(description="A mail address or a page where questions are answered.")
    method: Text = Field(description="What it does, in a few sentences.")
    paper: Text = Field(description="Reference or address; `none` where there is none.")
    threat_model: Text = Field(description="Who is the adversary, what can they do, and what do they want?")
    knowledge: Text = Field(description="What the method assumes to know: of models, data, the other side.")
    tuning_data: Text = Field(description="On which data its settings were chosen.")
    test_data_seen: Annotated[Text, BeforeValidator(_no)] = Field(
        pattern=r"(?s)^(no|yes\W+\w.*)$",
        description="Were test data of the suite looked at in any way? `no`, or `yes` and how.",
    )
    licence: Text = Field(description="Of the code, by its SPDX name, such as Apache-2.0.")
    signed_off_by: Text = Field(
        pattern=r"^[^<>\n]*[^<>\s][^<>\n]* <[^<>@\s]+@[^<>@\s]+>$",
        description="`Name <mail>`: all of this is true, and you may publish the code under this licence.",
    )


def template() -> str:
    """The file with every field empty."""
    lines = [
        "# What you say of your entry. Every field has to be filled in; a text may go on in lines that are indented."
    ]
    for name, field in Statement.model_fields.items():
        lines += ["", f"# {field.description}", f"{name}:"]
    return "\n".join(lines) + "\n"


def write_template(path: Path) -> None:
    """Write an empty statement. Raises `UsageError` where something is there."""
    if exists(path):
        raise UsageError(f"{path} is there: name a new file for the template")
    write_atomically(path, template().encode())


def read_statement(path: Path) -> tuple[Statement, bytes]:
    """The statement in a file, and the file as it is. Raises `UsageError` naming file, line and field."""
    document = read_yaml(path)
    statement = _validated(document)
    content = path.read_bytes()
    if len(content) > LIMIT:
        raise UsageError(f"{path}: a statement has at most {LIMIT // 2**10} KiB, and this has {len(content):,} bytes")
    return statement, content


def parse_statement(content: bytes, source: str) -> Statement:
    """The statement in a bundle, which `source` names. Raises `UsageError`."""
    try:
        return _validated(Document(source, read_value(content.decode())))
    except UnicodeDecodeError:
        raise UsageError(f"{source}: not UTF-8 text") from None


def _validated(document: Document) -> Statement:
    try:
        return Statement.model_validate(document.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        problems.sort(key=lambda one: document.line(one["loc"]))
        listed = "; ".join(f"{document.where(one['loc'])}: {_words(one)}" for one in problems[:4])
        more = f" (and {len(problems) - 4} more)" if len(problems) > 4 else ""
        raise UsageError(
            f"{listed}{more}. A statement has every field of what `arena submit --template FILE` writes"
        ) from None


def _words(error: ErrorDetails) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "missing":
        return "the field is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no such field{near_misses(name, Statement.model_fields)}"
    if error["type"] == "string_pattern_mismatch":
        about = Statement.model_fields[name].description
        return f"{_short(error['input'])} is not in the form asked for: {about}"
    if error["type"] == "string_type":
        return f"it must be a text, in quotes where YAML takes it for something else, not {_short(error['input'])}"
    return str(error["msg"]).removeprefix("Value error, ")


def _short(value: object) -> str:
    return shortened(repr(value), 100)
