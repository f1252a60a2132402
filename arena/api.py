"""What notebooks and the command line share: boards from records, suites by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from arena.errors import ArenaError, UsageError
from arena.record import Record, read_records
from arena.suite import Suite, digest, load_suite

if TYPE_CHECKING:
    from leaderboards.board import Board


def board(records: Iterable[Record] | Path | str) -> Board:
    """Every score of the records, given or in a JSONL file, as pandas tables.

    Raises `ArenaError` where they come from different suites or datasets.
    """
    from leaderboards.board import build

    return build(latest(read_records(Path(records)) if isinstance(records, Path | str) else records))


def write_board(board: Board, folder: Path, name: str) -> list[Path]:
    """The board as NAME.md, NAME.csv, NAME.parquet and NAME.html in `folder`; returns their paths."""
    from leaderboards.board import write

    return write(board, folder, name)


def write_evidence(path: Path) -> Path:
    """A page about what suites measured, as `path`, from the records in the folder ``results`` beside it; the file's
    name says which. Returns the path.

    ``mmguard.md`` is about the suites `mmguard` and `mmguard-ablations`, without the latter where it was not run;
    ``attacks.md`` and ``transfer.md`` about the suites `attacks` and `transfer`.

    Raises `UsageError` for another name, `ArenaError` where the suite has no records or a file cannot be read or
    written.
    """
    from leaderboards import attacks, evidence, transfer

    def records(name: str, needed: bool = True) -> list[Record]:
        file = path.parent / "results" / f"{name}.jsonl"
        if needed and not file.exists():
            raise ArenaError(f"{file} is missing: `arena run {name}` makes it")
        return records_of(find_suite(name), file) if file.exists() else []

    if path.name == "mmguard.md":
        page = evidence.page(records("mmguard"), records("mmguard-ablations", needed=False))
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


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record of every combination; records of cells as they were before a change stay in the file."""
    last: dict[tuple[object, ...], Record] = {}
    for r in records:
        combination = (
            *(r.suite.digest, r.dataset.id, str(sorted(r.dataset.config.items())), r.dataset.train, r.dataset.test),
            *(r.model.id, str(sorted(r.model.config.items())), r.recipe.label, r.attack.label, r.auxiliary, r.seed),
            *(r.defense.label, tuple(r.defense.surrogates)),
            *(() if r.defense.id == "none" else (r.budget.norm, r.budget.image, r.budget.text)),
        )
        last[combination] = r
    return list(last.values())


def records_of(suite: Suite, results: Path) -> list[Record]:
    """The suite's own records in a file that may hold older versions' too. Raises `ArenaError` if there are none."""
    own = [r for r in read_records(results) if r.suite.digest == digest(suite)]
    if not own:
        raise ArenaError(
            f"{results} has no record of suite {suite.id!r} as it is now: `arena run {suite.id}` makes them"
        )
    return latest(own)


def find_suite(name: str) -> Suite:
    """A suite by the path of its file, or by the id of a shipped one."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return load_suite(path)
    shipped = shipped_suites()
    if name not in shipped:
        from arena.registry import near_misses

        raise UsageError(
            f"no suite is called {name!r}{near_misses(name, shipped)}; shipped are {', '.join(shipped) or 'none'}, "
            "others are named by the path of their YAML file"
        )
    return load_suite(_suites() / f"{name}.yaml")


def shipped_suites() -> Sequence[str]:
    """Ids of the suites that come with the arena."""
    return sorted(path.stem for path in _suites().glob("*.yaml"))


def _suites() -> Path:
    return Path(str(files("leaderboards"))) / "suites"
