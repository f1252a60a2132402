"""`arena audit`, and what `arena run --check-determinism` shows: whether results can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stderr, stdout, table
from arena.cli.options import Results, possible
from arena.text import bound_text

if TYPE_CHECKING:
    from arena.engine.audit import Report
    from arena.plugins.registry import Registry
    from arena.records.audits import Compared
    from arena.suites.schema import Suite

commands = typer.Typer()

UNDECIDED = 3
"""Exit code where there is too little to judge by."""


@commands.command()
def audit(
    entry: Annotated[
        str | None, typer.Argument(metavar="ENTRY", help="A defense or an attack of the suite, by its label or id.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="SUITE", help="Path of a suite file, or id of a shipped suite.")
    ] = None,
    secret_seed: Annotated[
        int | None, typer.Option(min=0, help="What the data are drawn from; by default a random number.")
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Random places of the entry to run it at, on every draw; by default up to three, of a defense without "
            "attack.",
        ),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=2, help="Draws of data and seeds; by default as many as the suite has seeds.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            callback=possible,
            help="Audit what was submitted, instead of ENTRY and --suite; --results are then its suite's records.",
        ),
    ] = None,
    results: Results = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local workers; by default one a core.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=possible,
            help="Run nothing: hold the secrets of this audits.jsonl against their commitments.",
        ),
    ] = None,
) -> None:
    """Run an entry and its controls on data drawn from a secret, and compare its effect with the public records. Exits
    1 where they differ beyond the interval, 3 where that cannot be decided."""
    from arena.errors import UsageError

    if check is not None:
        if entry is not None or suite is not None or bundle is not None:
            raise UsageError("--check reads a file and runs nothing: leave out the entry, --suite and --bundle")
        _show_file(check)
        return
    if bundle is not None and (entry is not None or suite is not None):
        raise UsageError("a bundle says which entry it has, and of which suite: leave out ENTRY and --suite")
    if bundle is None and (entry is None or suite is None):
        raise UsageError("name an entry and its suite, as in `arena audit em --suite quick`, or a file with --check")
    from arena.engine.audit import audit as run
    from arena.plugins.registry import Registry
    from arena.records.files import default_results
    from arena.submissions.check import NotInstalled
    from arena.suites.shipped import find_suite
    from arena.suites.validation import validate

    registry = Registry()
    if bundle is not None:
        try:
            name, chosen, path = _of_bundle(bundle, results, registry)
        except NotInstalled as error:
            stderr().print(f"undecided: {error}", soft_wrap=True)
            raise typer.Exit(UNDECIDED) from error
    else:
        name, chosen = str(entry), find_suite(str(suite))
        path = results if results is not None else default_results(chosen.id)
    validate(chosen, registry, apart=True)
    report = run(
        name,
        chosen,
        registry,
        path,
        stderr(),
        secret=secret_seed,
        count=cells,
        draws=draws,
        workers=workers,
    )
    _show(report)
    code = {"agrees": 0, "differs": 1, "undecided": UNDECIDED}[report.verdict]
    if code:
        raise typer.Exit(code)


def _of_bundle(path: Path, results: Path | None, registry: Registry) -> tuple[str, Suite, Path]:
    """The label of a bundle's entry, its suite with the entry in it, and a file with the records of both, in a folder
    that the audit is written to."""
    from arena.files import write_atomically
    from arena.records.accept import ACCEPTED
    from arena.records.files import default_results, read_all, record_files
    from arena.submissions.bundle import read_bundle
    from arena.submissions.check import entered_of, refuse_not_installed

    bundle = read_bundle(path)
    entered = entered_of(bundle)
    refuse_not_installed(bundle, registry)
    own = results if results is not None else default_results(bundle.suite.id)
    folder = Path("build/audits") / bundle.digest[:12]
    records = [*read_all(record_files(own)), *bundle.records]
    write_atomically(folder / own.name, "".join(f"{record.model_dump_json()}\n" for record in records).encode())
    if (accepted := own.parent / ACCEPTED).exists():
        write_atomically(folder / ACCEPTED, accepted.read_bytes())
    return entered.use.label, entered.suite, folder / own.name


def _show(report: Report) -> None:
    from arena.engine.audit import too_many

    out = stdout()
    if report.revealed is None or report.committed is None:
        for line in report.missing:
            out.print(f"missing: {line}", soft_wrap=True)
        out.print("undecided: nothing was computed and nothing is committed to", soft_wrap=True)
        return
    rows = report.revealed.results
    wheres = [
        " · ".join((p.dataset, p.model, p.recipe, bound_text(p.budget.norm, p.budget.image)))
        for p in (row.place for row in rows)
    ]
    one = len(set(wheres)) == 1
    if one:
        out.print(wheres[0])
    columns = ("public", "secret", "difference", "95 %", "verdict")
    shown = table("defense", "attack", *(() if one else ("where",)), *columns)
    for row, where in zip(rows, wheres, strict=True):
        verdict = f"{row.verdict} (control)" if row.role == "control" else row.verdict
        names = (row.place.defense, row.place.attack, *(() if one else (where,)))
        shown.add_row(*names, *_numbers(row), verdict)
    out.print(shown)
    for row in rows:
        if row.why:
            out.print(f"{row.place.defense} / {row.place.attack}: {row.why}", soft_wrap=True)
    for found in report.revealed.reproduced:
        if found.public:
            told = "" if too_many(found) else ", which may be an accident"
            out.print(
                f"{found.place.defense} / {found.place.attack}: {found.public} of {found.samples} samples that it left "
                f"show pictures of the public data, which it was not given{told}",
                soft_wrap=True,
            )
    for note in (*report.revealed.notes, *(f"not audited: {line}" for line in report.missing)):
        out.print(note, soft_wrap=True)
    entry = report.committed.entry
    sentence = {
        "agrees": "does on secret data what it does on the public ones",
        "differs": "does otherwise on secret data than on the public ones",
        "undecided": "cannot be judged by these draws",
    }[report.verdict]
    out.print(f"{report.verdict}: {entry.kind} {entry.label} {sentence}; written to {report.file}", soft_wrap=True)


def _numbers(row: Compared) -> list[str]:
    """The columns of a comparison: in accuracy, 0 to 1."""

    def said(value: float | None) -> str:
        return "-" if value is None else f"{value:+.3f}"

    sides = [said(None if side is None else side.effect) for side in (row.public, row.secret)]
    interval = "-" if row.low is None or row.high is None else f"{row.low:+.3f} to {row.high:+.3f}"
    return [*sides, said(row.difference), interval]


def _show_file(path: Path) -> None:
    """Say of every audit of a file what became of it. Raises `ArenaError` for one that does not hold."""
    from arena.errors import UsageError
    from arena.records.audits import read

    if not path.is_file():
        raise UsageError(f"there is no file {path}: name an audits.jsonl")
    out, found = stdout(), read(path)
    for one in found:
        entry = one.committed.entry
        what = f"{one.committed.commitment[:12]} {one.committed.created[:10]} {entry.kind} {entry.label} in "
        what += one.committed.suite
        if one.revealed is None:
            out.print(f"{what}: no result yet", soft_wrap=True)
        else:
            out.print(f"{what}: {one.revealed.verdict}; the secret is the one committed to", soft_wrap=True)
    open_ = sum(one.revealed is None for one in found)
    out.print(f"{len(found)} audits, {open_} of them without a result", soft_wrap=True)


def show_determinism(suite: Suite, registry: Registry, count: int, workers: int | None) -> None:
    """Compute stages of a suite twice and say what differs. Exits 1 where something does."""
    from arena.engine.determinism import check_determinism

    out = stdout()
    report = check_determinism(suite, registry, count, stderr(), workers=workers)
    for finding in report.findings:
        out.print(f"{finding.kind}: {finding}", soft_wrap=True)
    for stage in report.stages:
        out.print(f"computed twice: {stage}", soft_wrap=True)
    out.print(f"{len(report.stages)} stages computed twice, {len(report.findings)} findings; nothing is recorded")
    if not report.deterministic:
        raise typer.Exit(1)
