"""One stress test: the target put into the suite, computed as `arena run` does, and held against what is required."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from arena.engine.execute import RunReport
from arena.engine.execute import run as run_suite
from arena.engine.plan import planned_cells
from arena.errors import UsageError
from arena.plugins.registry import Registry
from arena.records.schema import Asked as Cell
from arena.records.schema import Record
from arena.stress import baseline
from arena.stress.compare import Comparison, compare, refuse_other
from arena.stress.folder import export
from arena.stress.requirements import parse
from arena.stress.settings import Asked
from arena.stress.target import Target, entered, find_target
from arena.stress.verdicts import EXIT, Measured, Status, Verdict, judge, overall
from arena.suites.parts import DefenseUse
from arena.suites.schema import Suite, digest
from arena.suites.shipped import find_suite
from arena.suites.validation import validate
from arena.text import bound_text, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from arena.store.local import Store
    from leaderboards.tables.board import Board

FOLDER = Path("build/stress")
"""Where records of stress tests go, and folders that they need."""

BUDGET, COMPARE = "budget", "compare"
"""What is always required, and the comparison with a baseline, as verdicts are called."""


@dataclass(frozen=True)
class Outcome:
    """What a stress test found. Without a suite only the budget was looked at."""

    target: str
    verdicts: tuple[Verdict, ...]
    suite: str | None = None
    digest: str | None = None
    entry: str | None = None
    """The defense's label."""
    results: Path | None = None
    file: Path | None = None
    """Where the requirements stand."""
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    """What failed, a line a cause."""
    measured: tuple[tuple[str, Measured], ...] = field(default=())
    """The scores that are shown whatever is required, by name."""

    @property
    def status(self) -> Status:
        """Of all requirements together."""
        return overall(self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 met, 1 not met, 3 could not be decided."""
        return EXIT[self.status]


def check_budget(asked: Asked, registry: Registry) -> Outcome:
    """Hold the files of a folder against their budget and nothing else. Raises as `find_target`, and `UsageError` for a
    defense, which has to be run to be looked at."""
    target = find_target(asked.settings, registry)
    if target.protected is None:
        raise UsageError(
            f"target {target.name!r} is a defense: its budget is checked when a suite runs it; leave out "
            "--budget-only, or name a folder"
        )
    return Outcome(asked.settings.target, (_budget(target, "", ()),), file=asked.file)


def stress(
    asked: Asked,
    console: Console,
    store: Store,
    registry: Registry | None = None,
    scheduler: str = "processes",
    workers: int | None = None,
    force_failed: bool = False,
) -> Outcome:
    """Run the suite on the target and judge the requirements. Progress goes to `console`, records to
    ``build/stress/SUITE-TARGET.jsonl`` unless the settings say otherwise; cells that have a record there are not
    computed again.

    Raises `UsageError` for what cannot be asked, before anything is computed or written.
    """
    registry = registry or Registry()
    settings = asked.settings
    suite = find_suite(settings.suite)
    validate(suite, registry, apart=True)
    before = _baseline(settings.compare)
    target = find_target(settings, registry)
    results = Path(settings.results) if settings.results else FOLDER / f"{suite.id}-{target.name}.jsonl"
    originals = results.parent / "originals"
    made, entry, notes = entered(suite, target, originals)
    for requirement in asked.requirements:
        requirement.check(made)
    if target.breaches:
        return _beyond(asked, target, made, entry, notes)
    if target.protected is not None:
        export(target.protected, originals)
    validate(made, registry, apart=True)
    if isinstance(before, baseline.Revision):
        with tempfile.TemporaryDirectory(prefix="arena-baseline-") as folder:
            before = _at(before, Path(folder) / "code", target, made, results, store, console, workers)
    was = ""
    if before is not None and settings.compare is not None:
        planned = [cell.asked for cell in planned_cells(made, registry, apart=True)]
        was = refuse_other(before, planned, entry.label, settings.compare)
    report = run_suite(made, store, registry, scheduler, workers, results, force_failed, console, name=settings.suite)
    cells = [cell.asked for cell in report.plan.cells]
    board = board_of(report.records, cells)
    seeds = len(made.seeds)
    verdicts = [_budget(target, entry.label, report.records)]
    verdicts += [judge(one, board, entry.label, seeds, asked.lines.get(one.name, 0)) for one in asked.requirements]
    comparison = None
    if before is not None and settings.compare is not None:
        comparison = compare(before, report.records, cells, was, entry.label, settings.compare)
        verdicts.append(_compared(comparison, asked.lines.get(COMPARE, 0)))
        notes = (*notes, *_same_source(before, report.records, was, entry.label))
    if report.plan.broken:
        verdicts = [_unknown(verdict, report) for verdict in verdicts]
    return Outcome(
        settings.target,
        tuple(verdicts),
        made.id,
        digest(made),
        entry.label,
        results,
        asked.file,
        comparison,
        notes,
        failures_of(report),
        _shown(board, entry.label, seeds),
    )


def _unknown(verdict: Verdict, report: RunReport) -> Verdict:
    """A verdict where some cells could not even be planned: nothing is met then, for they may be what it depends on."""
    if verdict.status != "met":
        return verdict
    count = len(report.plan.broken)
    return replace(verdict, status="undecided", why=f"withheld: {count} cells of the suite cannot be planned")


def _baseline(named: str | None) -> list[Record] | baseline.Revision | None:
    if named is None:
        return None
    return baseline.read_baseline(named) if baseline.is_records(named) else baseline.Revision(named)


def _at(
    revision: baseline.Revision,
    code: Path,
    target: Target,
    suite: Suite,
    results: Path,
    store: Store,
    console: Console,
    workers: int | None,
) -> list[Record]:
    """The baseline of a revision: its code runs the suite, of a folder with what was released in it then."""
    revision.unpack(code)
    if target.protected is not None:
        was = revision.within(target.protected.folder, code)
        if was is None:
            raise UsageError(
                f"{target.protected.folder} is not among the files of {revision.named!r}: name a file of records as "
                "the baseline"
            )
        *controls, use = suite.defenses
        moved = use.model_copy(update={"config": {**use.config, "folder": str(was)}})
        suite = suite.model_copy(update={"defenses": (*controls, moved)})
    file = results.parent / "baselines" / f"{results.stem}-{revision.commit[:12]}.jsonl"
    return baseline.run_at(revision, code, suite, file, store.url, console, workers)


def board_of(records: Sequence[Record], cells: Sequence[Cell]) -> Board | None:
    """The tables of the records; None where there are none."""
    from leaderboards.tables.board import build

    return build(records, asked=cells) if records else None


def _budget(target: Target, entry: str, records: Sequence[Record]) -> Verdict:
    """Whether what was released is within its budget: of a folder by its files, of a defense by what the harness said
    of its releases."""
    own = [record for record in records if record.defense.label == entry]
    failed = [r.failure for r in own if r.failure is not None and r.failure.stage.startswith("release")]
    said = [shortened(failure.error.strip(), 400) for failure in failed if "budget: sample" in failure.error]
    if beyond := list(dict.fromkeys((*target.breaches, *said))):
        more = f" (and {len(beyond) - 1} more)" if len(beyond) > 1 else ""
        return Verdict(BUDGET, "failed", f"{beyond[0].rpartition('budget: ')[2]}{more}")
    if target.protected is not None:
        budget = target.protected.budget
        bound = f"{bound_text(budget.norm, budget.image)} ({budget.norm}) and {budget.text} words"
        return Verdict(BUDGET, "met", f"all {len(target.protected.originals)} released samples are within {bound}")
    if failed or not own:
        return Verdict(BUDGET, "undecided", f"withheld: {len(failed) or 'all'} cells have no release")
    return Verdict(BUDGET, "met", "every release is within its budget")


def _beyond(asked: Asked, target: Target, suite: Suite, entry: DefenseUse, notes: tuple[str, ...]) -> Outcome:
    """Of a folder beyond its budget: nothing is computed."""
    why = "nothing was computed, since the release is beyond its budget"
    others = [
        Verdict(r.name, "undecided", why, requirement=r, line=asked.lines.get(r.name, 0)) for r in asked.requirements
    ]
    verdicts = (_budget(target, "", ()), *others)
    return Outcome(asked.settings.target, verdicts, suite.id, digest(suite), entry.label, None, asked.file, None, notes)


def _compared(comparison: Comparison, line: int) -> Verdict:
    """The comparison as one verdict."""
    by_status = {
        status: [c for c in comparison.cells if c.status == status] for status in ("lost", "gained", "undecided")
    }
    of = f"of {len(comparison.cells)} cells against {shortened(comparison.baseline, 200)}"
    if lost := by_status["lost"]:
        worst = max(lost, key=lambda cell: cell.lost or 0.0)
        why = f"{len(lost)} {of} lost protection, most of all {worst.where}: {worst.lost:.3f} of accuracy"
        return Verdict(COMPARE, "failed", why, line=line)
    if open_ := by_status["undecided"]:
        return Verdict(COMPARE, "undecided", f"{len(open_)} {of} cannot be compared: {open_[0].missing}", line=line)
    return Verdict(COMPARE, "met", f"none {of} lost protection, {len(by_status['gained'])} gained", line=line)


def _same_source(before: Sequence[Record], after: Sequence[Record], was: str, entry: str) -> tuple[str, ...]:
    """A note where baseline and present have the same defense by source and settings: then nothing can have moved but
    by what is around it."""

    def made(records: Sequence[Record], label: str) -> set[tuple[str, str]]:
        own = [record.defense for record in records if record.defense.label == label]
        return {(d.source_digest, str((d.version, d.config, d.fingerprint))) for d in own}

    same = made(before, was) == made(after, entry) != set()
    return ("the baseline was made by the same source, settings and files of the protection",) if same else ()


def failures_of(report: RunReport) -> tuple[str, ...]:
    """What failed, each cause once, with how many cells it cost."""
    causes: dict[str, int] = {}
    said = [f"{r.failure.stage}: {r.failure.error.strip()}" for r in report.failed if r.failure is not None]
    for text in (*said, *(broken.problem for broken in report.plan.broken)):
        first = shortened(next(iter(text.splitlines()), ""), 400)
        causes[first] = causes.get(first, 0) + 1
    return tuple(f"{count} cells failed: {cause}" for cause, count in causes.items())


SHOWN = ("robust-protection", "protection", "psnr", "inserted-words", "answer-leak")
"""Scores that are shown whatever is required."""


def _shown(board: Board | None, entry: str, seeds: int) -> tuple[tuple[str, Measured], ...]:
    if board is None:
        return ()
    return tuple(
        (name, one) for name in SHOWN for one in judge(parse(f"{name}>=0@value"), board, entry, seeds).measured
    )
