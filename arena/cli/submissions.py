"""`arena submit`, `arena accept-submission`, and what `arena verify` does with a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.audits import UNDECIDED
from arena.cli.console import stderr, stdout
from arena.cli.options import Results, StoreUrl, possible, read_settings

if TYPE_CHECKING:
    from arena.records.submissions import Change, Number

commands = typer.Typer()


@commands.command()
def submit(
    suite: Annotated[
        str | None, typer.Argument(metavar="SUITE", help="Path of a suite file, or id of a shipped suite.")
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(metavar="ID", help="A defense or attack as `arena list` shows it, or attacks such as jpeg+case."),
    ] = None,
    statement: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=possible, help="What you say of it and sign off; see --template."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=possible, help="The bundle; by default SUITE-LABEL.zip.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=possible, help="Only write an empty statement.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="A setting of the entry, see `arena show`. Repeatable."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="What boards print; by default the id with its settings.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="DEFENSE",
            help="Run an attack on the controls and this defense alone, by its label. Repeatable.",
        ),
    ] = None,
    auxiliary: Annotated[
        float | None,
        typer.Option(min=0, help="Of an attack: clean samples of its own, as a share of the training size."),
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", callback=possible, help="The plugin's wheel, for the bundle.")
    ] = None,
    repository: Annotated[str | None, typer.Option(metavar="URL", help="Where the plugin's code is.")] = None,
    commit: Annotated[str | None, typer.Option(metavar="SHA", help="Of that repository: what ran.")] = None,
    store: StoreUrl = None,
    results: Results = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local workers; by default one a core.")] = None,
) -> None:
    """Run an entry on a board's suite and write a bundle that others can verify, see leaderboards/SUBMITTING.md."""
    from arena.errors import UsageError
    from arena.plugins.registry import Registry
    from arena.records.files import default_results
    from arena.records.submissions import read
    from arena.store.local import Store
    from arena.submissions import make
    from arena.submissions.entry import enter
    from arena.submissions.statement import read_statement, write_template
    from arena.suites.shipped import find_suite

    if template is not None:
        write_template(template)
        stdout().print(f"fill in {template}, and name it with --statement", soft_wrap=True)
        return
    if suite is None or entry is None or statement is None:
        raise UsageError(
            "name a suite, an entry and its statement, as in `arena submit quick --entry my-defense --statement "
            "statement.yaml`; `arena submit --template statement.yaml` writes an empty one"
        )
    _, signed = read_statement(statement)
    registry, board = Registry(), find_suite(suite)
    path = results if results is not None else default_results(board.id)
    entered = enter(
        board, entry, registry, read_settings(config or []), label, auxiliary, against or (), read(path.parent)
    )
    code, content = make.code_of(entered, registry, wheel, repository, commit)
    bundle = out if out is not None else Path(f"{board.id}-{_file_name(entered.use.label)}.zip")
    made = make.submit(entered, signed, code, content, bundle, registry, Store(store), path, stderr(), workers)
    console = stdout()
    for what, numbers in (("stealth", made.manifest.stealth), ("seconds a sample", made.manifest.cost)):
        listed = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items() if value is not None)
        console.print(f"{what}: {listed or 'nothing was measured'}", soft_wrap=True)
    console.print(f"{made.path}: {len(made.records)} cells, bundle {made.digest[:12]}", soft_wrap=True)


def show_code(path: Path, folder: Path) -> None:
    """Print what to install for a bundle, whose wheel is written to `folder`."""
    from arena.submissions.bundle import read_bundle

    for requirement in read_bundle(path).code_to(folder):
        stdout().print(requirement, soft_wrap=True)


def verify_bundle(path: Path, share: float, seed: int, out: Path | None, workers: int | None) -> None:
    """Hold a bundle against itself and compute a share of its cells anew, see `arena verify`."""
    from arena.errors import describe_error
    from arena.plugins.registry import Registry
    from arena.submissions.bundle import read_bundle
    from arena.submissions.check import NotInstalled, checked_file, verify, write_checked

    bundle = read_bundle(path)
    try:
        checked = verify(bundle, Registry(), stderr(), share, seed, workers)
    except NotInstalled as error:
        stderr().print(f"undecided: {describe_error(error)}", soft_wrap=True)
        raise typer.Exit(UNDECIDED) from error
    written = out if out is not None else checked_file(path)
    write_checked(written, checked)
    console, entry = stdout(), bundle.manifest.entry
    for check in checked.checks:
        console.print(
            f"{check.cell[:12]}: {check.verdict}, accuracy {check.recorded} in the bundle and {check.again} here",
            soft_wrap=True,
        )
    for problem in checked.problems:
        console.print(problem, soft_wrap=True)
    verdict = "passed" if checked.passed else "did not pass"
    console.print(
        f"{verdict}: {checked.agreeing} of {len(checked.checks)} cells of {entry.kind} {entry.label} that were "
        f"computed again agree, of {checked.of}; written to {written}",
        soft_wrap=True,
    )
    if not checked.passed:
        raise typer.Exit(1)


@commands.command("accept-submission")
def accept_submission(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", callback=possible, help="What `arena submit` made.")],
    verification: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=possible, help="What `arena verify` wrote; by default beside the bundle."
        ),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="The suite's file, where it is not one that is shipped.")
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", callback=possible, help="Of the suite's records; by default the checkout's."),
    ] = None,
) -> None:
    """Take a verified bundle into the records and regenerate the board. No cell of the suite itself changes."""
    from arena.cli.boards import asked_and_recorded, make, show_board
    from arena.errors import ArenaError, UsageError
    from arena.plugins.registry import Registry
    from arena.records.files import default_results
    from arena.submissions.bundle import read_bundle
    from arena.submissions.check import checked_file, read_checked
    from arena.submissions.merge import commit, prepare
    from arena.suites.shipped import find_suite
    from leaderboards.tables.changes import changes

    read = read_bundle(bundle)
    checked = read_checked(verification or checked_file(bundle), read, str(bundle))
    name = suite or read.suite.id
    results = default_results(read.suite.id) if records is None else records / f"{read.suite.id}.jsonl"
    merge = prepare(read, checked, name, results, Registry())
    asked, own = asked_and_recorded(find_suite(name), results, name)
    folder = results.parent
    before = make(own, folder, read.suite.id, asked)
    try:
        after = make(own, folder, read.suite.id, asked, (merge.line, merge.records))
    except ArenaError as error:
        raise UsageError(f"the bundle does not belong on this board: {error}") from error
    if not after.submissions[-1].records:
        raise UsageError(
            "none of the bundle's cells fits this board, which lacks what they were run on: accept the submission "
            f"first that it is about, or submit anew to the suite {name!r} as it is"
        )
    merge = merge.changing(changes(before, after))
    commit(merge, folder)
    show_board(own, folder, folder, read.suite.id, asked)
    console = stdout()
    for change in merge.line.changes:
        console.print(_changed(change), soft_wrap=True)
    line = merge.line
    console.print(
        f"accepted {line.entry.kind} {line.entry.label} by {line.author}: {len(line.cells)} cells", soft_wrap=True
    )


def _changed(change: Change) -> str:
    before = "new" if change.before is None else f"was {_said(change.before)}"
    by = f", best attack {change.attack}" if change.attack else ""
    return (
        f"{change.defense} on {change.dataset}, {change.model}: robust protection {_said(change.after)} ({before}){by}"
    )


def _said(number: Number) -> str:
    return f"{number.value:.3f}" if number.value is not None else str(number.undefined)


def _file_name(label: str) -> str:
    """A label as part of a file's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-+.") else "-" for c in label).strip("-.")[:100]
