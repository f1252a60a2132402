"""Checking a bundle elsewhere: what `arena verify BUNDLE` does."""

from __future__ import annotations

from datetime import UTC, datetime
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from rich.console import Console

from arena.engine.again import compute_again, scratch
from arena.engine.graph import Cell
from arena.engine.harvest import packages_here
from arena.engine.plan import planned_cells
from arena.environment import machine
from arena.errors import ArenaError, UsageError
from arena.files import write_atomically
from arena.paths import is_file
from arena.plugins.identity import CONTROL
from arena.plugins.registry import Registry
from arena.plugins.source import engine_digest
from arena.records.accept import problem
from arena.records.schema import Record
from arena.records.submissions import Checked
from arena.records.verify import compare, draw, spread
from arena.submissions.bundle import SUITE, Bundle
from arena.submissions.entry import Entered, parts_of
from arena.submissions.wheels import read_wheel
from arena.suites.parts import AttackUse, DefenseUse
from arena.suites.schema import Suite, digest
from arena.suites.shipped import find_suite, shipped_suites
from arena.suites.validation import validate

_CLOSE = 0.05
"""Relative difference up to which measured stealth is the same."""

_MOST = 200_000
"""Cells that a bundle's suite may have, since a suite of a few lines can have more than can ever be planned."""


class NotInstalled(ArenaError):
    """The plugin of a bundle is not installed as it was, so that nothing can be said of its cells."""


def entered_of(bundle: Bundle) -> Entered:
    """The bundle's entry on its suite. Raises `UsageError` where it is not one that a suite can have."""
    entry = bundle.manifest.entry
    try:
        use = (DefenseUse if entry.kind == "defense" else AttackUse).model_validate(entry.use)
    except ValidationError as error:
        raise UsageError(f"the bundle's entry {entry.label!r}: {problem(error)}: make the bundle anew") from error
    board = bundle.suite
    own = board.defenses if entry.kind == "defense" else board.attacks
    if _combinations(board) > _MOST:
        raise UsageError(
            f"the bundle's suite {board.id!r} has more than {_MOST:,} cells: submit the entry to a smaller one"
        )
    if use.label != entry.label or use.label in {CONTROL, *(known.label for known in own)}:
        raise UsageError(
            f"the bundle's entry {entry.label!r} is not called so, or suite {board.id!r} has that label itself: make "
            "the bundle anew"
        )
    return Entered(board, entry.kind, use, tuple(bundle.manifest.defenses))


def verify(
    bundle: Bundle, registry: Registry, console: Console, share: float, seed: int, workers: int | None = None
) -> Checked:
    """Hold a bundle's records against what its entry asks of its suite, and compute a random `share` of its cells, at
    least one, anew in a fresh store.

    Raises `NotInstalled` where its plugin is missing or other code, `UsageError` where the records are not the entry's.
    """
    refuse_other_suite(bundle)
    entered = entered_of(bundle)
    if bundle.suite.id not in shipped_suites():
        note = f"suite {bundle.suite.id!r} does not come with the arena: which plugins and files it names is in {SUITE}"
        console.print(note, markup=False, soft_wrap=True)
    refuse_not_installed(bundle, registry)
    suite = entered.suite
    validate(suite, registry, apart=True)
    cells = {cell.key: cell for cell in entered.cells(planned_cells(suite, registry, apart=True))}
    records = {record.cell: record for record in bundle.records}
    _refuse_others(bundle, cells, records)
    chosen = draw(list(cells), share, seed)
    console.print(f"{len(chosen)} of {len(cells)} cells are computed anew", markup=False)
    with scratch() as place:
        fresh = compute_again(suite, chosen, registry, place, console, workers)
    known = list(records.values())
    checks = [compare(records[key], fresh[key], spread(records[key], known)) for key in chosen]
    problems = [said for key in chosen if (said := _beside(records[key], fresh[key]))]
    if bundle.manifest.engine_digest != engine_digest() and not all(c.verdict == "contents equal" for c in checks):
        console.print(
            "the engine here is not the one that made the bundle, which may be why cells differ", markup=False
        )
    return Checked(
        bundle=bundle.digest,
        of=len(cells),
        seed=seed,
        checks=checks,
        problems=problems,
        machine=machine(),
        packages=packages_here(),
        engine_digest=engine_digest(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def checked_file(bundle: Path) -> Path:
    """Where the result of verifying a bundle is looked for: beside it."""
    return bundle.with_name(f"{bundle.name}.verified.json")


def write_checked(path: Path, checked: Checked) -> None:
    """Write the result of a verification in one step."""
    write_atomically(path, (checked.model_dump_json(indent=1) + "\n").encode())


def read_checked(path: Path, bundle: Bundle, name: str) -> Checked:
    """A verification of this bundle that it passed; `name` is what the bundle is called on the command line. Raises
    `UsageError` where it is not there, not of this bundle, or not passed."""
    command = f"`arena verify {name}`"
    if not is_file(path):
        raise UsageError(f"{path} is not there, and only what was verified is accepted: {command} writes it")
    try:
        checked = Checked.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path}: {problem(error)}: {command} writes it anew") from error
    if checked.bundle != bundle.digest:
        raise UsageError(f"{path} is of another bundle ({checked.bundle[:12]}, not {bundle.digest[:12]}): {command}")
    if not checked.passed:
        raise UsageError(
            f"{path} says that the bundle did not pass ({checked.agreeing} of {len(checked.checks)} cells agree"
            f"{'; ' if checked.problems else ''}{'; '.join(checked.problems[:2])}): it is not accepted. Ask its "
            f"author, or if it was the machine, {command} again"
        )
    return checked


def _combinations(suite: Suite) -> int:
    """Cells that a suite can have at most, counted without going through them."""
    budgets = max(len(use.budgets or suite.budgets) for use in suite.defenses)
    axes = (suite.datasets, suite.models, suite.recipes, suite.defenses, suite.attacks, suite.seeds)
    return budgets * prod(map(len, axes))


def refuse_other_suite(bundle: Bundle) -> None:
    """Raise `UsageError` where a shipped suite has the id of the bundle's and asks for something else."""
    id = bundle.suite.id
    if id in shipped_suites() and digest(find_suite(id)) != bundle.manifest.suite.digest:
        raise UsageError(
            f"the bundle is of a suite {id!r} that is not the one here, which has changed since: submit the entry to "
            "the suite as it is now"
        )


def refuse_not_installed(bundle: Bundle, registry: Registry) -> None:
    """Raise `NotInstalled` where the plugins of an entry are not installed, or with other source, `UsageError` where
    the bundle's wheel is not what is installed."""
    entry, code = bundle.manifest.entry, bundle.manifest.code
    for part in entry.parts:
        commit = f"check out commit {code.commit} of the arena"
        get = "get its code with `arena verify BUNDLE --code FOLDER`, read and install it"
        own = code.wheel is None and code.repository is None
        how = (
            f"{commit if own else get} ({code}), of {part.package} {part.package_version}, and verify again. A plugin "
            "is code that you run"
        )
        if part.id not in {known.id for known in registry.entries(entry.kind)}:
            raise NotInstalled(f"{entry.kind} {part.id!r} is not installed, so nothing of it can be computed: {how}")
        source = registry.get(entry.kind, part.id).source_digest()
        if source != part.source_digest:
            origin = registry.get(entry.kind, part.id).origin
            raise NotInstalled(
                f"{entry.kind} {part.id!r} is installed from {origin} with other source ({source[:12]}) than the "
                f"bundle's ({part.source_digest[:12]}), so nothing of it can be checked: {how}"
            )
    if bundle.wheel is not None:
        with TemporaryDirectory(prefix="arena-wheel-") as folder:
            bundle.code_to(Path(folder))
            path = Path(folder) / str(code.wheel)
            read_wheel(path, [registry.get(entry.kind, part.id) for part in entry.parts])


def _refuse_others(bundle: Bundle, cells: dict[str, Cell], records: dict[str, Record]) -> None:
    """Raise `UsageError` unless the records are of exactly these cells and the entry's code."""
    entry = bundle.manifest.entry
    missing, more = cells.keys() - records.keys(), records.keys() - cells.keys()
    if missing or more:
        raise UsageError(
            f"the bundle lacks {len(missing)} of the {len(cells)} cells that {entry.kind} {entry.label!r} has on suite "
            f"{bundle.suite.id!r}, and has {len(more)} that are not the entry's: make it anew with `arena submit`"
        )
    for record in records.values():
        if parts_of(record, entry.kind) != entry.parts:
            raise UsageError(
                f"the bundle's cell {record.cell[:12]} was made by other code than its manifest says: make it anew "
                "with `arena submit`"
            )


def _beside(before: Record, again: Record) -> str | None:
    """What a record says beside its outcome that computing it again does not show: zero-shot answers, where the machine
    is alike, and stealth. Costs are the machine's."""
    name = before.cell[:12]
    if before.lineage == again.lineage and before.zero_shot != again.zero_shot:
        return f"cell {name}: other zero-shot answers"
    if before.stealth is None or again.stealth is None:
        return None if before.stealth == again.stealth else f"cell {name}: stealth is there and is not"
    for key in sorted(before.stealth.keys() | again.stealth.keys()):
        one, other = before.stealth.get(key), again.stealth.get(key)
        if (one is None) != (other is None) or (
            one is not None and other is not None and abs(one - other) > _CLOSE * max(abs(one), abs(other), 1e-3)
        ):
            return f"cell {name}: {key} is {other} and was said to be {one}"
    return None
