"""`arena accept`, `arena verify` and `arena migrate`: what keeps records valid."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.console import stderr, stdout
from arena.cli.options import possible
from arena.cli.submissions import show_code, verify_bundle

if TYPE_CHECKING:
    from arena.suites.schema import Suite

commands = typer.Typer()

Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="SUITE", help="Also this suite, by the path of its file. Repeatable."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Local workers; by default one a core.")]


@commands.command()
def accept(
    plugins: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLUGIN|engine]...", help="Ids of what changed; by default all that made records stale."
        ),
    ] = None,
    cells: Annotated[int, typer.Option(min=1, help="Random cells of every suite that a plugin is in.")] = 2,
    suite: Suites = None,
    against: Annotated[
        str | None, typer.Option(help="Git revision, or file of records made here, that is known to be right.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of cells.")] = 0,
    workers: Workers = None,
) -> None:
    """Show that changed code computes what it did, by computing cells anew: their records then stay. Exits 1 if not."""
    from arena.engine import acceptance
    from arena.plugins.registry import Registry
    from arena.records.accept import ACCEPTED
    from arena.records.files import default_results

    registry, folder = Registry(), default_results("any").parent
    evidence = acceptance.gather(_suites(suite or []), registry, default_results)
    outcomes = acceptance.accept(plugins or [], evidence, folder, registry, stderr(), cells, against, seed, workers)
    out, refused = stdout(), 0
    if not outcomes:
        out.print("nothing to accept: every record was made by the present source, or by one accepted as alike")
    for outcome in sorted(outcomes, key=lambda o: o.plugin):
        count = len(outcome.checks)
        if outcome.lacking:
            refused += 1
            cell, reference = next(iter(outcome.lacking.items()))
            out.print(
                f"not accepted {outcome.plugin}: {len(outcome.lacking)} of its cells, such as {cell[:12]}, came out "
                f"otherwise than their records, and {reference} has none of them: compute them here by the code as it "
                "was, or name a revision with --against",
                markup=False,
                soft_wrap=True,
            )
        elif not outcome.checks:
            refused += 1
            out.print(f"not accepted {outcome.plugin}: no cell that has it is done", markup=False, soft_wrap=True)
        elif outcome.differing:
            refused += 1
            worst = outcome.differing[0]
            version = "PROTOCOL_VERSION" if outcome.plugin == "engine" else "its `version`"
            out.print(
                f"refused {outcome.plugin}: {len(outcome.differing)} of {count} cells came out otherwise, such as "
                f"{worst.cell[:12]}: {worst.verdict}, accuracy {worst.recorded} before and {worst.again} now. If that "
                f"is meant, count up {version}; the old records stay, as those of another cell",
                markup=False,
                soft_wrap=True,
            )
        else:
            against_what = " and ".join(sorted(outcome.against))
            out.print(f"accepted {outcome.plugin}: {count} cells equal to {against_what}", markup=False, soft_wrap=True)
    if len(outcomes) > refused:
        out.print(f"written to {folder / ACCEPTED}", soft_wrap=True)
    if refused:
        raise typer.Exit(1)


@commands.command()
def verify(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUITE...|BUNDLE", help="Suites, by default all shipped ones with records; or what was submitted."
        ),
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the cells, at least one a suite; by default 0.02, of a bundle 0.1."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the choice of cells; by default 0, of a bundle a random number.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=possible, help="The result for a bundle; by default beside it."),
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            callback=possible,
            help="Compute nothing: write a bundle's wheel there, and print what to give to `pip install`.",
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Compute a random share of committed cells anew, or of the cells of a bundle that `arena submit` made, and record
    what agreed. Exits 1 where contents differ on a like machine, or accuracies by more than chance, 3 where the plugin
    of a bundle is not installed."""
    import secrets
    from datetime import UTC, datetime

    from arena.engine import acceptance
    from arena.engine.again import compute_again, scratch
    from arena.engine.harvest import packages_here
    from arena.environment import machine
    from arena.errors import UsageError
    from arena.plugins.identity import PROTOCOL_VERSION
    from arena.plugins.registry import Registry
    from arena.plugins.source import engine_digest
    from arena.records import verify as verification
    from arena.records.files import default_results
    from arena.submissions.bundle import is_bundle
    from arena.suites.schema import digest
    from arena.suites.shipped import find_suite

    if suites and any(is_bundle(Path(name)) for name in suites):
        if len(suites) > 1:
            raise UsageError("name one bundle, or suites: each bundle is verified by itself")
        if code is not None:
            show_code(Path(suites[0]), code)
            return
        chance = secrets.randbelow(2**31) if seed is None else seed  # who submits cannot know it
        verify_bundle(Path(suites[0]), 0.1 if share is None else share, chance, out, workers)
        return
    if out is not None or code is not None:
        raise UsageError("--out and --code are for a bundle; of suites, what agreed is appended beside their records")
    share, seed = 0.02 if share is None else share, seed or 0
    registry, folder = Registry(), default_results("any").parent
    named = [(Path(name), find_suite(name)) for name in suites] if suites else _suites([])
    evidence = acceptance.gather(named, registry, default_results)
    if suites and len(evidence) < len(suites):
        have = {e.suite.id for e in evidence}
        missing = next(suite.id for _, suite in named if suite.id not in have)
        raise UsageError(f"suite {missing!r} has no records to verify: `arena run {missing}` makes them")
    disagree = 0
    for e in evidence:
        done = [key for key in e.cells if key in e.records and e.records[key].status == "done"]
        if not done:
            stdout().print(f"{e.suite.id}: no cell is done", markup=False, soft_wrap=True)
            continue
        chosen = verification.draw(done, share, seed)
        with scratch() as place:
            fresh = compute_again(e.suite, chosen, registry, place, stderr(), workers)
        known = list(e.records.values())
        checks = [
            verification.compare(e.records[key], fresh[key], verification.spread(e.records[key], known))
            for key in chosen
        ]
        line = verification.Verification(
            suite=e.suite.id,
            suite_digest=digest(e.suite),
            protocol_version=PROTOCOL_VERSION,
            of=len(done),
            seed=seed,
            checks=checks,
            machine=machine(),
            packages=packages_here(),
            engine_digest=engine_digest(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        verification.append(folder, line)
        disagree += sum(check.verdict not in verification.AGREES for check in checks)
        for date, text in verification.facts([line], e.suite.id, chosen):
            stdout().print(f"{e.suite.id}, {date}: {text}", markup=False, soft_wrap=True)
    if disagree:
        stdout().print(f"{disagree} cells do not agree; see {folder / verification.VERIFICATIONS}", soft_wrap=True)
        raise typer.Exit(1)


@commands.command()
def migrate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSONL files of records of schema 1.")],
    suite: Suites = None,
) -> None:
    """Rewrite records of schema 1 as schema 2, in place; the file as it was is kept beside it as FILE.schema-1."""
    from arena.files import write_atomically
    from arena.plugins.registry import Registry
    from arena.records import migrate as migration

    registry, suites = Registry(), [known for _, known in _suites(suite or [])]
    for path in files:
        lines = migration.read_lines(path)
        records = migration.migrate(lines, suites, registry)
        if any(line["schema_version"] == 1 for line in lines.values()):  # else what is kept beside it would be lost
            write_atomically(path.with_name(f"{path.name}.schema-1"), path.read_bytes())
            write_atomically(path, "".join(f"{record.model_dump_json()}\n" for record in records).encode())
        stdout().print(f"{path}: {len(records)} records, {len({r.cell for r in records})} cells", soft_wrap=True)


def _suites(others: Iterable[str]) -> list[tuple[Path, Suite]]:
    """The shipped suites and others, by their files."""
    from arena.suites.shipped import find_suite, shipped_suites, suite_file

    names = [*(str(suite_file(name)) for name in shipped_suites()), *others]
    return [(Path(name), find_suite(name)) for name in names]
