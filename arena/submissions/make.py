"""Making a bundle: what `arena submit` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from rich.console import Console

from arena.engine.again import scratch
from arena.engine.execute import compute, recorded, why_cells
from arena.engine.plan import plan
from arena.environment import code_state
from arena.errors import ArenaError, UsageError
from arena.files import refuse_foreign
from arena.plugins.registry import OURS, Registry
from arena.plugins.source import engine_digest
from arena.records.files import read_all
from arena.records.schema import Record, SuiteRef
from arena.records.select import by_cell
from arena.records.submissions import Entry, records_file
from arena.store.local import Store
from arena.submissions.bundle import (
    PACKAGES,
    RECORDS,
    STATEMENT,
    SUITE,
    Code,
    Manifest,
    described,
    means_of,
    write_bundle,
)
from arena.submissions.entry import Entered, parts_of
from arena.submissions.wheels import read_wheel
from arena.suites.schema import digest
from arena.suites.validation import validate


@dataclass(frozen=True)
class Made:
    """A bundle that was written."""

    path: Path
    digest: str
    manifest: Manifest
    records: Sequence[Record]


def submit(
    entered: Entered,
    statement: bytes,
    code: Code,
    wheel: bytes | None,
    out: Path,
    registry: Registry,
    store: Store,
    results: Path,
    console: Console,
    workers: int | None = None,
) -> Made:
    """Compute the cells of an entry that have no record which holds, in the records that count beside `results` and
    among what was submitted there, and write them with all that others need to check them to `out`.

    `statement` is the validated file of the author, see `arena.submissions.statement`, `code` says where the plugin's
    code is, with the content of its `wheel`. The records go nowhere else; finished stages stay in the store.

    Raises `UsageError` where the entry cannot run on the suite, `ArenaError` where a cell failed: nothing is written.
    """
    refuse_foreign(out, "a bundle", b"PK\x03\x04")
    suite = entered.suite
    validate(suite, registry, apart=True)
    whole = plan(suite, registry, store, apart=True)
    if whole.broken:
        raise ArenaError(f"{whole.broken[0].label}: {whole.broken[0].problem}")
    cells = entered.cells(whole.cells)
    known = recorded(suite, cells, results) | _submitted(results, entered.board.id, {cell.key for cell in cells})
    reasons = why_cells(whole, known, results)
    todo = [cell for cell in cells if cell.key in reasons]
    console.print(f"{len(cells)} cells, {len(cells) - len(todo)} of them have a record that holds", markup=False)
    with scratch() as place:
        fresh = compute(whole, todo, place / "cells.jsonl", console, workers=workers).records
    own = SuiteRef(id=entered.board.id, digest=digest(entered.board))
    records = [{**known, **fresh}[cell.key].model_copy(update={"suite": own}) for cell in cells]
    if failed := [record for record in records if record.failure is not None]:
        first = failed[0]
        raise ArenaError(
            f"{len(failed)} of {len(cells)} cells failed, such as {first.defense.label} / {first.attack.label}, seed "
            f"{first.seed}: {first.failure.error if first.failure else ''}. An entry is submitted whole: repair it, "
            "and submit again; finished stages are reused"
        )
    files = {
        RECORDS: "".join(f"{record.model_dump_json()}\n" for record in records).encode(),
        SUITE: (entered.board.model_dump_json() + "\n").encode(),
        STATEMENT: statement,
        PACKAGES: "".join(f"{line}\n" for line in lock()).encode(),
    }
    if wheel is not None and code.wheel is not None:
        files[code.wheel] = wheel
    asked, means = cells[0].asked, means_of(records)
    manifest = Manifest(
        suite=own,
        entry=Entry(
            kind=entered.kind,
            label=entered.use.label,
            use=entered.use.model_dump(mode="json"),
            parts=parts_of(asked, entered.kind),
        ),
        defenses=list(entered.defenses),
        code=code,
        engine_digest=engine_digest(),
        stealth=means[0],
        cost=means[1],
        files=described(files),
        created=max(record.created for record in records),
    )
    return Made(out, write_bundle(out, manifest, files), manifest, records)


def code_of(
    entered: Entered, registry: Registry, wheel: Path | None, repository: str | None, commit: str | None
) -> tuple[Code, bytes | None]:
    """Where others get the code of an entry: from a wheel, which is held against what is installed, or from a commit of
    a repository; that of the arena's own plugins from the commit that is checked out.

    Raises `UsageError` where it is not said, or the wheel is of other code.
    """
    plugins = [registry.get(entered.kind, id) for id in entered.use.id.split("+")]
    if wheel is not None:
        if repository is not None or commit is not None:
            raise UsageError("name a --wheel, or --repository and --commit: one of them is the code")
        try:
            return Code(wheel=wheel.name), read_wheel(wheel, plugins)
        except ValueError:
            raise UsageError(f"{wheel.name} is no name of a wheel: use the one that `pip wheel` gave it") from None
    if repository is not None and commit is not None:
        try:
            return Code(repository=repository, commit=commit), None
        except ValueError:
            raise UsageError(
                f"--repository {repository} --commit {commit}: a repository is an https address, a commit its 40 digits"
            ) from None
    if repository is not None or commit is not None:
        raise UsageError("--repository and --commit belong together: where the code is, and which of it ran")
    others = sorted({plugin.origin.package for plugin in plugins} - {OURS})
    if others:
        raise UsageError(
            f"others cannot check an entry without its code: name the --wheel of {' and '.join(others)} (`pip wheel "
            "--no-deps FOLDER` builds one), or a --repository and its --commit"
        )
    head, dirty = code_state()
    if head is None or dirty:
        why = "differs from the commit that is checked out" if dirty else "is not in a checkout"
        raise UsageError(f"the code of {entered.use.id} {why}: commit it, or name --repository and --commit")
    return Code(commit=head), None


def lock() -> list[str]:
    """Every installed package with its version, sorted."""
    found = {(dist.name.lower(), dist.version) for dist in distributions() if dist.name}
    return [f"{name}=={version}" for name, version in sorted(found)]


def _submitted(results: Path, suite: str, cells: set[str]) -> dict[str, Record]:
    path = records_file(results.parent, suite)
    found = by_cell(read_all([path] if path.exists() else []))
    return {cell: record for cell, record in found.items() if cell in cells}
