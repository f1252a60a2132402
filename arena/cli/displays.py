"""What commands print beside plans and plugins: costs of a suite, modules that a recipe trains, settings, failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from arena.cli.console import plain, table
from arena.text import bound_text, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from arena.engine.cost import Costs
    from arena.engine.graph import Plan
    from arena.engine.schedule import Schedule
    from arena.engine.stages import Stage
    from arena.plugins.registry import Registry
    from arena.records.schema import Record

ROOM = 100
"""Columns of a terminal from which on a plugin's settings are a table."""
CAUSES, NAMED = 10, 6
"""Causes of failures, and labels of an axis, that are listed."""


def show_costs(costs: Costs, out: Console) -> None:
    """The total of a plan by the cost model, and what that assumes."""
    from arena.engine.cost import assumptions

    disk = gigabytes(sum(costs.disk.values()))
    out.print(
        f"about {hours(costs.gpu_hours())} GPU hours and {disk} of artifacts, beside {gigabytes(costs.downloads)} of "
        "base models"
    )
    if costs.unknown:
        out.print(f"not counted, since nobody said how many parameters they have: {', '.join(costs.unknown)}")
    out.print(assumptions())


def counted(count: int, what: str) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{count} {what}" + "s" * (count != 1)


def hours(count: float) -> str:
    """GPU hours as text."""
    return f"{count:,.1f}" if count < 100 else f"{count:,.0f}"


def gigabytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / 1e9:,.1f} GB" if count < 1e12 else f"{count / 1e12:,.1f} TB"


def show_schedule(found: Schedule, out: Console) -> None:
    """A simulated run: how long it takes, what of its workers' time is idle, and why more of them would not help."""
    from arena.engine.progress import duration

    if not found.total:
        return
    workers, kind = counted(found.workers, "worker"), max(found.work, key=found.work.__getitem__)
    lines = [
        f"{workers}, simulated: {duration(found.seconds)}, which is {hours(found.workers * found.seconds / 3600)} "
        f"worker-hours, {found.efficiency:.0%} of them at work and {1 - found.efficiency:.0%} idle",
        f"work: {hours(found.total / 3600)} worker-hours, {found.work[kind] / found.total:.0%} of them for stages of "
        f"kind {kind}; spread over {workers}: {duration(found.total / found.workers)}",
        f"critical path: {duration(found.chain_seconds)}: "
        + " > ".join(f"{stage.kind} {stage.label} ({duration(seconds)})" for stage, seconds in found.chain),
    ]
    longest = max(found.chain, key=lambda part: part[1])[0]
    if found.useful > found.workers:
        lines.append(
            f"limit: the work; beyond about {found.useful:.0f} workers the critical path, of which most is "
            f"{longest.kind} {longest.label}"
        )
    else:
        lines.append(
            f"limit: the critical path, of which most is {longest.kind} {longest.label}; more than about "
            f"{max(1, round(found.useful))} workers hardly help"
        )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def show_why(plan: Plan, reasons: Mapping[str, str], missing: Sequence[Stage], out: Console) -> None:
    """What makes each cell and each stage of a plan run: `reasons` by cell as of `arena.engine.execute.why_cells`, and
    the stages that are `missing` for these cells."""
    from arena.engine.why import why_stages

    todo = [cell for cell in plan.cells if cell.key in reasons]
    for reason in dict.fromkeys(reasons[cell.key] for cell in todo):
        same = [cell for cell in todo if reasons[cell.key] == reason]
        out.print(f"{counted(len(same), 'cell')}: {reason}", markup=False, soft_wrap=True)
        for cell in same:
            out.print(f"  {cell.key[:12]} {cell.label}", markup=False, highlight=False, soft_wrap=True)
    found = why_stages(plan, missing)
    for reason in dict.fromkeys(found[stage.name] for stage in missing):
        alike = [stage for stage in missing if found[stage.name] == reason]
        out.print(f"{counted(len(alike), 'stage')}: {reason}", markup=False, soft_wrap=True)
        for stage in alike:
            out.print(f"  {stage.kind} {stage.label}", markup=False, highlight=False, soft_wrap=True)


def show_trained(registry: Registry, recipe: str, model: str, out: Console) -> None:
    """What a recipe trains in a model, which is loaded for it."""
    from arena.environment import quiet_libraries

    quiet_libraries()
    from arena.engine.describe import Plugins
    from arena.owner.protect import surrogate
    from arena.plugins.spec import load_model
    from arena.recipes.trained import trained_modules

    lvlm = load_model(surrogate(model, Plugins(registry)).spec)
    parts, total = trained_modules(registry.create("recipe", recipe), lvlm)
    trained = table(f"trained in {model}", "what", "parameters", "share", right=2)
    trained.show_footer = True
    for part in parts:
        trained.add_row(part.modules, part.what, f"{part.parameters:,}", f"{part.parameters / total:.2%}")
    learning = sum(part.parameters for part in parts)
    footers = ("all", f"of {total:,}", f"{learning:,}", f"{learning / total:.2%}")
    for column, footer in zip(trained.columns, footers, strict=True):
        column.footer = footer
    out.print(trained)


def show_settings(settings: Sequence[Mapping[str, str | None]], out: Console) -> None:
    """A plugin's settings as `arena.plugins.registry.describe` has them: a table where there is room, else one below
    the other."""
    from rich.padding import Padding

    shown = [{**setting, "default": setting["default"] or "(must be given)"} for setting in settings]
    fields = ("name", "type", "default", "range", "description")
    if shown and out.width >= ROOM:
        listed = table("setting", *fields[1:])
        for setting in shown:
            listed.add_row(*(setting[field] or "" for field in fields))
        out.print(listed)
        return
    for setting in shown:
        out.print(plain(setting["name"] or "", "bold"))
        about = [f"{field}: {setting[field]}" for field in fields[1:-1] if setting[field]]
        for line in (", ".join(about), setting["description"]):
            if line:
                out.print(Padding(plain(line), (0, 0, 0, 2)))


@dataclass(frozen=True)
class _Cause:
    """Failures that have one cause."""

    stage: str
    error: str
    records: list[Record]


def show_failures(records: Sequence[Record], results: Path, out: Console) -> None:
    """The failed cells among the records of a run, a paragraph a cause."""
    failed = [record for record in records if record.failure is not None]
    causes = _causes(failed)
    for cause in causes[:CAUSES]:
        count = counted(len(cause.records), "cell")
        out.print(f"failed: {count} ({named(cause.records)}): {cause.stage}: {cause.error}", soft_wrap=True)
    if len(causes) > CAUSES:
        out.print(f"failed: {counted(sum(len(c.records) for c in causes[CAUSES:]), 'cell')} more, of other causes")
    out.print(
        f"{len(failed)} of {len(records)} cells failed; tracebacks are in {results}, --force-failed tries them again",
        soft_wrap=True,
    )


def show_cut(records: Sequence[Record], out: Console) -> None:
    """How many cells have test answers that the limit of tokens ended; nothing where none has."""
    found = [record for record in records if record.outcome is not None and record.outcome.cut]
    if not found:
        return
    worst = max(found, key=lambda record: (record.outcome.cut or 0) / record.outcome.items if record.outcome else 0)
    assert worst.outcome is not None
    out.print(
        f"cut off: in {counted(len(found), 'cell')} ({named(found)}) the model did not end some of its answers, which "
        f"were cut off at the limit of tokens: {worst.outcome.cut} of {worst.outcome.items} in "
        f"{named([worst])}",
        soft_wrap=True,
    )


def _causes(failed: Iterable[Record]) -> list[_Cause]:
    """Failures of one kind of stage with one error but for its numbers, such as a seed's; most cells first."""
    found: dict[tuple[str, str], _Cause] = {}
    for record in failed:
        assert record.failure is not None
        stage, error = record.failure.stage, record.failure.error.strip() or "without a message"
        key = stage.partition(" ")[0], re.sub(r"\d+", "0", error)
        found.setdefault(key, _Cause(stage, shortened(error, 1000), [])).records.append(record)
    return sorted(found.values(), key=lambda cause: -len(cause.records))


def named(records: Sequence[Record]) -> str:
    """Some cells in a line: every label once where all combinations of them are there, else the first few cells. Data
    sets, models and budgets are named where there are several."""
    every = [(r.dataset.id, r.model.id, bound_text(r.budget.norm, r.budget.image)) for r in records]
    several = [number for number in range(3) if len({names[number] for names in every}) > 1]
    cells = [
        (*(names[n] for n in several), r.defense.label, r.attack.label, r.recipe.label, f"seed {r.seed}")
        for names, r in zip(every, records, strict=True)
    ]
    axes = [list(dict.fromkeys(names)) for names in zip(*cells, strict=True)]
    if prod(map(len, axes)) == len(set(cells)):
        parts = [f"{', '.join(axis[:NAMED])}{_more(len(axis) - NAMED)}" for axis in axes]
        return f"{' / '.join(parts[:-1])}, {parts[-1]}"
    listed = [f"{' / '.join(cell[:-1])}, {cell[-1]}" for cell in dict.fromkeys(cells)]
    return "; ".join(listed[:3]) + _more(len(listed) - 3)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
