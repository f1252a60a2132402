"""`arena plan` and `arena run`: what a suite takes, and computing it."""

from __future__ import annotations

from typing import Annotated

import typer

from arena.cli import displays
from arena.cli.boards import show_board
from arena.cli.console import stderr, stdout
from arena.cli.options import Results, StoreUrl, SuiteName, Tiny, chosen_suite, results_file

commands = typer.Typer()


@commands.command("plan")
def show_plan(
    suite: SuiteName,
    store: StoreUrl = None,
    tiny: Tiny = False,
    results: Results = None,
    why: Annotated[
        bool, typer.Option("--why", help="Say of each cell and stage to compute what makes it run.")
    ] = False,
) -> None:
    """Show what a run would compute, what is cached, an estimate of what it takes, and how many cells have a record
    that holds."""
    import os
    from collections import Counter

    from rich.table import Table

    from arena.engine.cost import CostModel
    from arena.engine.execute import recorded, why_cells
    from arena.engine.plan import plan as planned
    from arena.engine.progress import duration
    from arena.engine.stages import ZeroShot
    from arena.plugins.registry import Registry
    from arena.store.local import Store

    registry, opened = Registry(), Store(store)
    out = stdout()
    plan = planned(chosen_suite(suite, registry, opened, tiny, out), registry, opened, estimate=True)
    path = results_file(results, plan.suite.id, tiny)
    reasons = why_cells(plan, recorded(plan.suite, plan.cells, path), path)
    absent = plan.missing()
    wanted = plan.closure(name for cell in plan.cells if cell.key in reasons for name in cell.stages.values())
    missing = [stage for stage in absent if stage.name in wanted]
    model = CostModel(plan)
    big = any(model.known(stage.model) for stage in plan.stages.values() if isinstance(stage, ZeroShot))
    estimates = ("GPU hours", "disk") if big else ("estimate",)
    table = Table("stage", "all", "cached", "to compute", *estimates, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    every, lacking, left = (Counter(s.kind for s in stages) for stages in (plan.stages.values(), absent, missing))
    costs = model.costs(missing) if big else None
    for kind, count in every.items():
        if costs is not None:
            cells = [displays.hours(costs.gpu_hours(kind)), displays.gigabytes(costs.disk.get(kind, 0.0))]
        else:
            cells = [duration(sum(plan.seconds[s.name] for s in missing if s.kind == kind))]
        table.add_row(kind, str(count), str(count - lacking[kind]), str(left[kind]), *cells)
    out.print(f"suite {plan.suite.id} · digest {plan.digest[:12]} · {len(plan.cells)} cells · store {plan.store.url}")
    out.print(table)
    if costs is not None:
        displays.show_costs(costs, out)
    else:
        cores = os.cpu_count() or 1
        total = sum(plan.seconds[s.name] for s in missing)
        out.print(
            f"about {duration(total / cores)} on {cores} local workers, from what like stages took before or defaults"
        )
    held = len(plan.cells) - len(reasons)
    out.print(f"{held} of {len(plan.cells)} cells have a record that holds", markup=False, soft_wrap=True)
    if why:
        displays.show_why(plan, reasons, missing, out)


@commands.command("run")
def run_suite(
    suite: SuiteName,
    store: StoreUrl = None,
    scheduler: Annotated[
        str, typer.Option(help="processes, threads, sync, or the address of a dask scheduler (tcp://host:8786).")
    ] = "processes",
    workers: Annotated[int | None, typer.Option(min=1, help="Local workers; by default one a core.")] = None,
    results: Results = None,
    force_failed: Annotated[bool, typer.Option("--force-failed", help="Try cells recorded as failed again.")] = False,
    tiny: Tiny = False,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            "--cell",
            metavar="NAME",
            help="Only this cell, by the beginning of its name: the field cell of records, or as `arena plan SUITE "
            "--why` shows it. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a suite: compute what is missing, record every cell, write the board. Exits 1 if a cell failed."""
    from arena.engine.execute import run
    from arena.plugins.registry import Registry
    from arena.store.local import Store

    registry, opened = Registry(), Store(store)
    chosen = chosen_suite(suite, registry, opened, tiny, stderr())
    report = run(
        chosen,
        store=opened,
        registry=registry,
        scheduler=scheduler,
        workers=workers,
        results=results_file(results, chosen.id, tiny),
        force_failed=force_failed,
        console=stderr(),
        only=cell or (),
        name=f"{suite} --tiny" if tiny else suite,
    )
    if report.failed:
        for record in report.failed:
            assert record.failure is not None
            line = f"{record.defense.label} / {record.attack.label} / {record.recipe.label}, seed {record.seed}"
            stderr().print(f"failed: {line}: {record.failure.stage}: {record.failure.error}", markup=False)
        stderr().print(
            f"{len(report.failed)} of {len(report.records)} cells failed; tracebacks are in {report.results}, "
            "--force-failed tries them again"
        )
    show_board(report.records, report.results.parent, report.results.parent, chosen.id)
    if report.failed:
        raise typer.Exit(1)
