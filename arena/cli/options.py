"""Arguments and options that several commands share, and the suite that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from arena.budget import Budget
    from arena.data.pictures.encoding import Encoding
    from arena.plugins.registry import Registry
    from arena.store.local import Store
    from arena.suites.schema import Suite

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Path of a suite file, or id of a shipped suite.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", envvar="ARENA_STORE", help="Folder or fsspec URL of the artifacts.")
]
Tiny = Annotated[
    bool,
    typer.Option(
        "--tiny", help="A dry run: random tiny models of the same architectures, drawn data of the same schemas."
    ),
]


def possible(path: Path | None) -> Path | None:
    """A path that something can be at; raises `UsageError` for a name too long or links in a circle."""
    from arena.paths import exists

    if path is not None:
        exists(path)
    return path


Results = Annotated[Path | None, typer.Option("--results", callback=possible, help="JSONL file of the records.")]


def results_file(results: Path | None, suite: str, tiny: bool) -> Path:
    """Where the records of a suite, or of a dry run, go, unless `results` says it."""
    from arena.records.files import default_results
    from arena.suites import dry_run

    return results or (dry_run.default_results(suite) if tiny else default_results(suite))


def chosen_suite(name: str, registry: Registry, store: Store, tiny: bool, out: Console, apart: bool = False) -> Suite:
    """The suite of a name, validated; with `tiny` its dry run, of which `out` says what it is; with
    `apart` no plugin is imported here."""
    from arena.suites.shipped import find_suite
    from arena.suites.validation import validate

    suite = find_suite(name)
    validate(suite, registry, apart)
    if not tiny:
        return suite
    from arena.suites.dry_run import tiny as made

    beside = store.folder.with_name(f"{store.folder.name}-tiny")  # plugins read it, and nothing in the store
    dry = made(suite, registry, beside)
    for note in dry.notes:
        out.print(f"tiny: {note}", markup=False, highlight=False, soft_wrap=True)
    validate(dry.suite, registry, apart)
    return dry.suite


def read_budget(image: float, text: int, answer_words: bool) -> Budget:
    """The budget of three options. Raises `UsageError`."""
    from pydantic import ValidationError

    from arena.budget import Budget
    from arena.errors import UsageError

    try:
        return Budget(image=image, text=text, forbid_answer_words=not answer_words)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"--budget-{first['loc'][0]} {first['input']}: {first['msg']}") from None


def read_encoding(format: str, quality: int | None) -> Encoding:
    """The encoding of two options. Raises `UsageError`."""
    from pydantic import ValidationError

    from arena.data.pictures.encoding import Encoding
    from arena.errors import UsageError

    try:
        return Encoding.model_validate({"format": format, "quality": quality})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = f"--{first['loc'][0]} {first['input']}" if first["loc"] else f"--quality {quality}"
        raise UsageError(f"{option}: {first['msg']}") from None


def read_settings(given: list[str], option: str = "--config") -> dict[str, Any]:
    """``KEY=VALUE`` words of an option as settings, values in YAML. Raises `UsageError`."""
    from arena.errors import UsageError
    from arena.suites.yaml_lines import read_value
    from arena.text import shortened

    settings = {}
    for word in given:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} '{shortened(word, 100)}': give KEY=VALUE, such as rounds=5")
        try:
            settings[key] = read_value(value)
        except UsageError as error:
            raise UsageError(f"{option} '{shortened(word, 100)}': {error}") from None
    return settings
