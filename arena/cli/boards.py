"""`arena board` and `arena evidence`: from records to tables and pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stdout
from arena.cli.options import Results

if TYPE_CHECKING:
    from arena.records.schema import Asked, Record
    from arena.records.submissions import Shown, Submission
    from arena.suites.schema import Suite
    from leaderboards.pages import EvidencePage
    from leaderboards.tables.board import Board

commands = typer.Typer()


@commands.command("board")
def make_board(
    sources: Annotated[
        list[str], typer.Argument(metavar="SUITE|RECORDS...", help="A suite, or JSONL files of records.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the board; by default beside the records.")
    ] = None,
    results: Results = None,
) -> None:
    """Write a board from records: Markdown, CSV, Parquet and a page."""
    if all(source.endswith(".jsonl") for source in sources):
        from arena.records.files import read_all
        from arena.records.select import latest

        paths = [Path(source) for source in sources]
        show_board(latest(read_all(paths)), paths[0].parent, out or paths[0].parent, paths[0].stem)
        return
    if len(sources) > 1:
        raise typer.BadParameter("name one suite, or any number of .jsonl files of records")
    from arena.records.files import default_results
    from arena.suites.shipped import find_suite

    suite = find_suite(sources[0])
    path = results or default_results(suite.id)
    asked, records = asked_and_recorded(suite, path, sources[0])
    show_board(records, path.parent, out or path.parent, suite.id, asked)


@commands.command("evidence")
def make_evidence(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A page by its name, such as mmguard.md; the records are in the folder records beside it, or as long "
            "as there are none in that of the latest earlier protocol version, such as records/v1.",
        ),
    ],
    findings: Annotated[
        bool, typer.Option(help="With the dated prose about the results, whose numbers are filled in.")
    ] = True,
) -> None:
    """Write what suites measured, beside what was published: of MMGuard, of attacks, of transfer between models."""
    from leaderboards.pages import find_page, write_page

    page = find_page(out.name)
    typer.echo(write_page(page, page_records(page, out.parent / "records"), out, findings))


def page_records(page: EvidencePage, folder: Path) -> dict[str, list[Record]]:
    """What a page is made from, by suite: the records in `folder`, of a page that compares all cells those of seeds
    that have them all, and where a suite that the page needs has none there, or too few seeds, those of the latest
    earlier protocol version that has all of them. Versions are not mixed.

    Raises `ArenaError` naming a file that is nowhere, or whose suite has more cells.
    """
    from arena.errors import ArenaError
    from arena.records.files import past, read_records
    from arena.records.select import latest
    from arena.score.statistics import LEAST_SEEDS
    from arena.suites.shipped import find_suite

    found: dict[str, list[Record]] = {}
    lacking: dict[str, str] = {}
    for suite in (*page.suites, *page.optional):
        file = folder / f"{suite}.jsonl"
        if not file.exists():
            lacking[suite] = f"{file} is missing: `arena run {suite}` makes it"
            continue
        asked, records = asked_and_recorded(find_suite(suite), file, suite)
        whole = records if page.of_parts else of_whole_seeds(asked, records)
        if not whole:
            lacking[suite] = (
                f"{file} has {len(records)} of the {len(asked)} cells of suite {suite!r}, and all of them for fewer "
                f"than {LEAST_SEEDS} of its seeds: `arena run {suite}` computes the others"
            )
            continue
        found[suite] = whole
    if found.keys() >= set(page.suites):
        return found
    for place in past(folder):
        files = {suite: place / f"{suite}.jsonl" for suite in (*page.suites, *page.optional)}
        there = {suite: file for suite, file in files.items() if file.exists()}
        if there.keys() >= set(page.suites):
            return {suite: latest(read_records(file)) for suite, file in there.items()}  # no suite of today has them
    raise ArenaError(next(lacking[suite] for suite in page.suites if suite in lacking))


def of_whole_seeds(asked: Sequence[Asked], records: Sequence[Record]) -> list[Record]:
    """The records of those seeds whose every cell has one; none where these are neither all that were asked for nor so
    many that their intervals are believed."""
    from arena.score.statistics import LEAST_SEEDS

    missing = {cell.identity for cell in asked} - {record.cell for record in records}
    partial = {cell.seed for cell in asked if cell.identity in missing}
    whole = {cell.seed for cell in asked} - partial
    return [record for record in records if record.seed in whole] if not partial or len(whole) >= LEAST_SEEDS else []


def asked_and_recorded(suite: Suite, results: Path, name: str) -> tuple[list[Asked], list[Record]]:
    """All that a suite asks for, and the records that count of its cells, under its labels and in the plan's order;
    `results` is where `arena run` puts new ones. Raises `ArenaError` where there are none; `name` is what commands call
    the suite, by default its id."""
    from arena.engine.execute import recorded
    from arena.engine.plan import planned_cells
    from arena.errors import ArenaError
    from arena.plugins.registry import Registry
    from arena.records.files import default_results, record_files
    from arena.suites.validation import validate

    registry = Registry()
    validate(suite, registry)
    cells = planned_cells(suite, registry)
    if not (found := recorded(suite, cells, results)):
        where = "" if results == default_results(suite.id) else f" --results {results}"
        command = f"arena run {name or suite.id}{where}"
        if not record_files(results):
            raise ArenaError(f"{results} does not exist: check the path, or make the records with `{command}`")
        raise ArenaError(f"{results} has no record of suite {suite.id!r} as it is now: `{command}` makes them")
    return [cell.asked for cell in cells], list(found.values())


def show_board(records: Iterable[Record], standing: Path, folder: Path, name: str, asked: Iterable[Asked] = ()) -> None:
    """Write the board NAME of some records into `folder`, and its ranking to the console; what was withdrawn, verified
    and submitted is in the folder `standing`. `asked` are all cells of the suite, where they are known."""
    from leaderboards.tables.board import summary, write

    board = make(records, standing, name, asked)
    paths = write(board, folder, name)
    stdout().print(summary(board))
    stdout().print("board: " + ", ".join(map(str, paths)), soft_wrap=True)


def make(
    records: Iterable[Record],
    standing: Path,
    name: str,
    asked: Iterable[Asked] = (),
    more: tuple[Submission, Iterable[Record]] | None = None,
) -> Board:
    """The board of some records, as `show_board` writes it; with `more`, as if that submission had been accepted."""
    from arena.records import submissions
    from arena.records.accept import Standing
    from arena.records.verify import facts
    from arena.records.verify import read as read_verifications
    from leaderboards.tables.board import Verification, Withdrawn, build

    stands = Standing.read(standing)
    kept, withdrawn = stands.without_withdrawn(records)
    suite = kept[0].suite.id if kept else name
    cells = [cell for cell in asked if stands.withdrawal(cell) is None]
    lines = submissions.read(standing) + ([more[0]] if more else [])
    shown: list[Shown] = []
    if kept and any(line.suite == suite for line in lines):
        others, gone = stands.without_withdrawn(
            (submissions.submitted(standing, suite) | {r.cell: r for r in (more[1] if more else ())}).values()
        )
        withdrawn += gone
        shown = submissions.shown(lines, {r.cell: r for r in others}, kept[0].suite, cells or kept)
    verified = read_verifications(standing, kept[0].protocol_version) if kept else ()
    return build(
        kept,
        [Verification(*fact) for fact in facts(verified, suite, {r.cell for r in kept})],
        [Withdrawn(f"{entry.kind} {entry.id}", entry.version, entry.reason) for entry in withdrawn],
        cells,
        shown,
    )
