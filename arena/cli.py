"""The command line: a thin layer over `arena.run` and `arena.api`. Imports what a command needs when it runs."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arena import displays, owner_commands

if TYPE_CHECKING:
    from arena.record import Record
    from arena.registry import Registry
    from arena.store import Store
    from arena.suite import Suite

app = typer.Typer(
    name="arena",
    help="Data protections for vision-language models against the attacks of fine-tuners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
zoo = typer.Typer(help="The tiny models that come with the arena.", no_args_is_help=True)
app.add_typer(zoo, name="zoo")
app.command("protect")(owner_commands.protect)
app.command("explain")(owner_commands.explain)


class PluginKind(StrEnum):
    """What `arena list` can be asked for."""

    DEFENSES = "defenses"
    ATTACKS = "attacks"
    RECIPES = "recipes"
    DATASETS = "datasets"
    MODELS = "models"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Path of a suite file, or id of a shipped suite.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", envvar="ARENA_STORE", help="Folder or fsspec URL of the artifacts.")
]
Tiny = Annotated[
    bool,
    typer.Option(
        "--tiny", help="A dry run: random tiny models of the same architectures, drawn data of the same schemas."
    ),
]
Results = Annotated[Path | None, typer.Option("--results", help="JSONL file of the records.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"arena {version('mmguard-arena')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Options of every command."""
    from rich.logging import RichHandler

    handler = RichHandler(console=_stderr(), show_path=debug, show_time=debug)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("arena").setLevel(logging.DEBUG if debug else logging.INFO)


@app.command("list")
def list_plugins(kind: Annotated[PluginKind | None, typer.Argument(help="Only these.")] = None) -> None:
    """List the installed plugins."""
    from rich.table import Table

    from arena.registry import BASES, Registry

    registry = Registry()
    table = Table("kind", "id", "package", "about", box=None, pad_edge=False)
    for each in BASES:
        if kind is not None and f"{each}s" != kind:
            continue
        for entry in registry.entries(each):
            about = entry.problem()
            if about is None:
                lines = (entry.load().__doc__ or "").strip().splitlines()
                about = lines[0] if lines else ""
            else:
                about = f"broken: {about}"
            table.add_row(each, entry.id, str(entry.origin), _plain(about))
    _stdout().print(table)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="A plugin's id.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="For a recipe: a model's id, or ID=CHECKPOINT, to list what it trains in."),
    ] = None,
) -> None:
    """Show a plugin: what it does, its settings, where it comes from; of a recipe also what it trains in a model."""
    from rich.table import Table

    from arena.errors import UsageError
    from arena.registry import BASES, Registry, describe, near_misses

    registry = Registry()
    known = {kind: {entry.id for entry in registry.entries(kind)} for kind in BASES}
    kinds = [kind for kind in BASES if id in known[kind]]
    if not kinds:
        raise UsageError(f"no plugin is called {id!r}{near_misses(id, set().union(*known.values()))}; see `arena list`")
    out = _stdout()
    for kind in kinds:
        about = describe(registry.get(kind, id))
        out.print(f"[bold]{kind} {id}[/]  {about['origin']['package']} {about['origin']['version']}")
        out.print(_plain(about["doc"]))
        out.print(f"needs: {', '.join(about['needs']) or 'nothing'} · version {about['version']}")
        out.print(f"source {about['digest']}", soft_wrap=True)
        settings = Table("setting", "type", "default", "range", "description", box=None, pad_edge=False)
        for setting in about["config"]:
            default = "(must be given)" if setting["default"] is None else setting["default"]
            cells = (setting["name"], setting["type"], default, setting["range"], setting["description"])
            settings.add_row(*(_plain(cell) for cell in cells))
        if about["config"]:
            out.print(settings)
    if model is not None:
        if "recipe" not in kinds:
            raise UsageError(
                f"--model lists what a recipe trains, and {id!r} is a {' and a '.join(kinds)}: leave it out"
            )
        displays.show_trained(registry, id, model, out)
    elif "recipe" in kinds:
        out.print(f"arena show {id} --model MODEL lists the modules that it trains, such as --model tiny-llava")


@app.command("plan")
def show_plan(suite: SuiteName, store: StoreUrl = None, tiny: Tiny = False) -> None:
    """Show what a run would compute, what is cached, and an estimate of what it takes."""
    import os
    from collections import Counter

    from rich.table import Table

    from arena.cost import CostModel
    from arena.plan import plan as planned
    from arena.progress import duration
    from arena.registry import Registry
    from arena.store import Store

    registry, opened = Registry(), Store(store)
    out = _stdout()
    plan = planned(_chosen(suite, registry, opened, tiny, out), registry, opened)
    missing = plan.missing()
    model = CostModel(plan, registry)
    big = any(model.parameters(stage.document["model"]) for stage in plan.stages.values() if stage.kind == "zero-shot")
    estimates = ("GPU hours", "disk") if big else ("estimate",)
    table = Table("stage", "all", "cached", "to compute", *estimates, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    every, left = Counter(s.kind for s in plan.stages.values()), Counter(s.kind for s in missing)
    costs = model.costs(missing) if big else None
    for kind, count in every.items():
        if costs is not None:
            cells = [displays.hours(costs.gpu_hours(kind)), displays.gigabytes(costs.disk.get(kind, 0.0))]
        else:
            cells = [duration(sum(plan.seconds[s.key] for s in missing if s.kind == kind))]
        table.add_row(kind, str(count), str(count - left[kind]), str(left[kind]), *cells)
    out.print(f"suite {plan.suite.id} · digest {plan.digest[:12]} · {len(plan.cells)} cells · store {plan.store.url}")
    out.print(table)
    if costs is not None:
        displays.show_costs(costs, out)
        return
    cores = os.cpu_count() or 1
    total = sum(plan.seconds[s.key] for s in missing)
    out.print(
        f"about {duration(total / cores)} on {cores} local workers, from what like stages took before or defaults"
    )


@app.command("run")
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
) -> None:
    """Run a suite: compute what is missing, record every cell, write the board. Exits 1 if a cell failed."""
    from arena.registry import Registry
    from arena.run import run
    from arena.store import Store

    registry, opened = Registry(), Store(store)
    chosen = _chosen(suite, registry, opened, tiny, _stderr())
    if tiny and results is None:
        from arena.tiny import default_results

        results = default_results(chosen.id)
    report = run(
        chosen,
        store=opened,
        registry=registry,
        scheduler=scheduler,
        workers=workers,
        results=results,
        force_failed=force_failed,
        console=_stderr(),
    )
    if report.failed:
        for record in report.failed:
            assert record.failure is not None
            line = f"{record.defense.label} / {record.attack.label} / {record.recipe.label}, seed {record.seed}"
            _stderr().print(f"failed: {line}: {record.failure.stage}: {record.failure.error}", markup=False)
        _stderr().print(
            f"{len(report.failed)} of {len(report.records)} cells failed; tracebacks are in {report.results}, "
            "--force-failed tries them again"
        )
    _show_board(report.records, report.results.parent, chosen.id)
    if report.failed:
        raise typer.Exit(1)


@app.command("board")
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
    from arena import api
    from arena.record import read_records
    from arena.run import default_results

    if all(source.endswith(".jsonl") for source in sources):
        paths = [Path(source) for source in sources]
        records = api.latest(record for path in paths for record in read_records(path))
        folder, name = paths[0].parent, paths[0].stem
    else:
        if len(sources) > 1:
            raise typer.BadParameter("name one suite, or any number of .jsonl files of records")
        suite = api.find_suite(sources[0])
        path = results or default_results(suite.id)
        records, folder, name = api.records_of(suite, path), path.parent, suite.id
    _show_board(records, out or folder, name)


@app.command("evidence")
def make_evidence(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="mmguard.md, attacks.md or transfer.md; the records are in results/ beside it."
        ),
    ],
) -> None:
    """Write what suites measured, beside what was published: of MMGuard, of attacks, of transfer between models."""
    from arena import api

    typer.echo(api.write_evidence(out))


@zoo.command("list")
def list_zoo() -> None:
    """List the tiny models that can be trained here."""
    from rich.table import Table

    from arena.lvlm.zoo.models import TINY

    table = Table("name", "seed", "image", "patch", "words", "steps", box=None, pad_edge=False)
    for name, spec in TINY.items():
        steps = spec.tower_steps + spec.language_steps + spec.joint_steps
        table.add_row(name, *map(str, (spec.seed, spec.image_size, spec.patch_size, spec.vocab_size, steps)))
    _stdout().print(table)


@zoo.command("train")
def train_zoo(
    name: Annotated[str, typer.Argument(help="A name of `arena zoo list`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of checkpoints and of the packed model.")] = None,
) -> None:
    """Train a tiny model from its seed and pack it; goes on where an earlier call was interrupted."""
    from arena.environment import quiet_libraries
    from arena.errors import UsageError

    quiet_libraries()
    from arena.lvlm.zoo.models import TINY
    from arena.lvlm.zoo.pack import pack
    from arena.lvlm.zoo.train import Training
    from arena.registry import near_misses

    if name not in TINY:
        raise UsageError(f"no tiny model is called {name!r}{near_misses(name, TINY)}; see `arena zoo list`")
    folder = out or Path("zoo") / name
    training = Training(TINY[name], folder / "checkpoints", typer.echo)
    training.run()
    pack(training, folder / name, typer.echo)
    typer.echo(f"packed in {folder / name}")


def main() -> None:
    """The entry point: an error is a paragraph on standard error; exit code 2 is usage, 1 failure, 130 Ctrl-C."""
    from arena.errors import ArenaError, UsageError

    try:
        app()
    except ArenaError as error:
        if "--debug" in sys.argv:
            raise
        _stderr().print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _chosen(name: str, registry: Registry, store: Store, tiny: bool, out: Any) -> Suite:
    """The suite of a name, validated; with `tiny` its dry run, of which `out` says what it is."""
    from arena import api
    from arena.validation import validate

    suite = api.find_suite(name)
    validate(suite, registry)
    if not tiny:
        return suite
    from arena.tiny import tiny as made

    dry = made(suite, registry, store.folder / "tiny")
    for note in dry.notes:
        out.print(f"tiny: {note}", markup=False, highlight=False, soft_wrap=True)
    validate(dry.suite, registry)
    return dry.suite


def _show_board(records: Any, folder: Path, name: str) -> None:
    from arena import api
    from leaderboards.board import build, summary

    records_done: list[Record] = list(records)
    board = build(records_done)
    paths = api.write_board(board, folder, name)
    _stdout().print(summary(board))
    _stdout().print("board: " + ", ".join(map(str, paths)), soft_wrap=True)


def _stdout() -> Any:
    from rich.console import Console

    return Console()


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
