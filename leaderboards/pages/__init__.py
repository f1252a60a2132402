"""Pages about what suites measured."""

from __future__ import annotations

from pathlib import Path

from arena.errors import ArenaError, UsageError
from arena.records.schema import Record
from arena.records.select import records_of
from arena.suites.shipped import find_suite


def write_evidence(path: Path) -> Path:
    """A page about what suites measured, as `path`, from the records in the folder ``results`` beside it; the file's
    name says which. Returns the path.

    ``mmguard.md`` is about the suites `mmguard` and `mmguard-ablations`, without the latter where it was not run;
    ``attacks.md`` and ``transfer.md`` about the suites `attacks` and `transfer`.

    Raises `UsageError` for another name, `ArenaError` where the suite has no records or a file cannot be read or
    written.
    """
    from leaderboards.pages import attacks, mmguard, transfer

    def records(name: str, needed: bool = True) -> list[Record]:
        file = path.parent / "records" / f"{name}.jsonl"
        if needed and not file.exists():
            raise ArenaError(f"{file} is missing: `arena run {name}` makes it")
        return records_of(find_suite(name), file) if file.exists() else []

    if path.name == "mmguard.md":
        page = mmguard.page(records("mmguard"), records("mmguard-ablations", needed=False))
    elif path.name == "attacks.md":
        page = attacks.page(records("attacks"))
    elif path.name == "transfer.md":
        page = transfer.page(records("transfer"))
    else:
        raise UsageError(
            f"no page is called {path.name!r}: write mmguard.md, attacks.md or transfer.md, beside a folder results"
        )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ArenaError(f"{path} cannot be written ({error}): free some space or choose another folder") from error
    return path
