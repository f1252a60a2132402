"""`arena board` and `arena evidence`: from records to tables and pages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stdout
from arena.cli.options import Results

if TYPE_CHECKING:
    from arena.records.schema import Record

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
    from arena.engine.execute import default_results
    from arena.records.files import read_records
    from arena.records.select import latest, records_of
    from arena.suites.shipped import find_suite

    if all(source.endswith(".jsonl") for source in sources):
        paths = [Path(source) for source in sources]
        records = latest(record for path in paths for record in read_records(path))
        folder, name = paths[0].parent, paths[0].stem
    else:
        if len(sources) > 1:
            raise typer.BadParameter("name one suite, or any number of .jsonl files of records")
        suite = find_suite(sources[0])
        path = results or default_results(suite.id)
        records, folder, name = records_of(suite, path), path.parent, suite.id
    show_board(records, out or folder, name)


@commands.command("evidence")
def make_evidence(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="mmguard.md, attacks.md or transfer.md; the records are in results/ beside it."
        ),
    ],
) -> None:
    """Write what suites measured, beside what was published: of MMGuard, of attacks, of transfer between models."""
    from leaderboards.pages import write_evidence

    typer.echo(write_evidence(out))


def show_board(records: Iterable[Record], folder: Path, name: str) -> None:
    from leaderboards.tables.board import build, summary, write

    records_done: list[Record] = list(records)
    board = build(records_done)
    paths = write(board, folder, name)
    stdout().print(summary(board))
    stdout().print("board: " + ", ".join(map(str, paths)), soft_wrap=True)
