"""`arena plan` and `arena run`: what a suite takes, and computing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.cli import displays
from arena.cli.boards import show_board
from arena.cli.console import stderr, stdout, table
from arena.cli.options import Results, StoreUrl, SuiteName, Tiny, chosen_suite, possible, results_file

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
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Simulate the run on so many workers: how long, how idle, and what limits it."),
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(
            callback=possible,
            help="With --workers: a YAML file of seconds a stage, such as `fine-tuned: 600` or `release em: 3600`, in "
            "place of what like stages took or are estimated to take.",
        ),
    ] = None,
) -> None:
    """Show what a run would compute, what is cached, an estimate of what it takes, and how many cells have a record
    that holds."""
    import os
    from collections import Counter

    from arena.engine.cost import CostModel
    from arena.engine.execute import recorded, why_cells
    from arena.engine.plan import plan as planned
    from arena.engine.progress import duration
    from arena.engine.stages import ZeroShot
    from arena.errors import UsageError
    from arena.plugins.registry import Registry
    from arena.store.local import Store

    if times is not None and workers is None:
        raise UsageError("--times: what it says is for --workers N, which simulates the run")
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
    stages = table("stage", "all", "cached", "to compute", *estimates, right=1)
    every, lacking, left = (Counter(s.kind for s in stages) for stages in (plan.stages.values(), absent, missing))
    costs = model.costs(missing) if big else None
    for kind, count in every.items():
        if costs is not None:
            cells = [displays.hours(costs.gpu_hours(kind)), displays.gigabytes(costs.disk.get(kind, 0.0))]
        else:
            cells = [duration(sum(plan.seconds[s.name] for s in missing if s.kind == kind))]
        stages.add_row(kind, str(count), str(count - lacking[kind]), str(left[kind]), *cells)
    out.print(f"suite {plan.suite.id} · digest {plan.digest[:12]} · {len(plan.cells)} cells · store {plan.store.url}")
    for sweep, count in Counter(use.sweep for use in plan.suite.recipes if use.sweep is not None).items():
        said = f"sweep {sweep}: the fine-tuner chooses among {count} recipes, {count} fine-tunings a choice"
        out.print(said, markup=False, soft_wrap=True)
    out.print(stages)
    if costs is not None:
        displays.show_costs(costs, out)
    else:
        cores = os.cpu_count() or 1
        total = sum(plan.seconds[s.name] for s in missing)
        out.print(
            f"about {duration(total / cores)} on {cores} local workers, from what like stages took before or defaults"
        )
    if workers is not None:
        from arena.engine.schedule import expected, simulate, stated
        from arena.records.files import read_all, record_files

        seconds = expected(plan, missing, read_all(record_files(path)), model if big else None)
        seconds |= stated(times, missing) if times is not None else {}
        cells_to_run = [cell for cell in plan.cells if cell.key in reasons]
        displays.show_schedule(simulate(plan, cells_to_run, missing, seconds, workers), out)
    held = len(plan.cells) - len(reasons)
    out.print(f"{held} of {len(plan.cells)} cells have a record that holds", markup=False, soft_wrap=True)
    if why:
        displays.show_why(plan, reasons, missing, out)


@commands.command("run")
def run_suite(
    suite: SuiteName,
    store: StoreUrl = None,
    scheduler: Annotated[
        str,
        typer.Option(
            help="processes, sync, or the address of a dask scheduler (tls://host:8786), see arena/engine/CLUSTER.md."
        ),
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
    check_determinism: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Record nothing: compute N releases and N purifications twice, and compare them."
        ),
    ] = None,
) -> None:
    """Run a suite: compute what is missing, record every cell, write the board. Exits 1 if a cell failed."""
    from arena.engine.execute import run
    from arena.plugins.registry import Registry
    from arena.store.local import Store

    registry, opened = Registry(), Store(store)
    if check_determinism is not None:
        from arena.cli.audits import show_determinism

        chosen = chosen_suite(suite, registry, opened, tiny, stderr(), apart=True)
        show_determinism(chosen, registry, check_determinism, workers)
        return
    try:
        chosen = chosen_suite(suite, registry, opened, tiny, stderr(), apart=True)
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
            displays.show_failures(report.records, report.results, stderr())
        displays.show_cut(report.records, stderr())
        asked = [cell.asked for cell in report.plan.cells]
        show_board(report.records, report.results.parent, report.results.parent, chosen.id, asked)
    except KeyboardInterrupt as stop:
        kept = f"finished cells are recorded and finished stages kept in {opened.url}; run again to go on"
        raise KeyboardInterrupt(*(stop.args or (kept,))) from stop
    if report.failed or report.plan.broken:
        raise typer.Exit(1)
