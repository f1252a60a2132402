"""`arena list` and `arena show`: what is installed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from arena.cli import displays
from arena.cli.console import plain, stdout

commands = typer.Typer()


class PluginKind(StrEnum):
    """What `arena list` can be asked for."""

    DEFENSES = "defenses"
    ATTACKS = "attacks"
    RECIPES = "recipes"
    DATASETS = "datasets"
    MODELS = "models"


@commands.command("list")
def list_plugins(kind: Annotated[PluginKind | None, typer.Argument(help="Only these.")] = None) -> None:
    """List the installed plugins."""
    from rich.table import Table

    from arena.plugins.registry import BASES, Registry

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
            table.add_row(each, entry.id, str(entry.origin), plain(about))
    stdout().print(table)


@commands.command()
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
    from arena.plugins.registry import BASES, Registry, describe, near_misses

    registry = Registry()
    known = {kind: {entry.id for entry in registry.entries(kind)} for kind in BASES}
    kinds = [kind for kind in BASES if id in known[kind]]
    if not kinds:
        raise UsageError(f"no plugin is called {id!r}: see `arena list`{near_misses(id, set().union(*known.values()))}")
    out = stdout()
    for kind in kinds:
        about = describe(registry.get(kind, id))
        out.print(f"[bold]{kind} {id}[/]  {about['origin']['package']} {about['origin']['version']}")
        out.print(plain(about["doc"]))
        out.print(f"needs: {', '.join(about['needs']) or 'nothing'} · version {about['version']}")
        out.print(f"source {about['digest']}", soft_wrap=True)
        settings = Table("setting", "type", "default", "range", "description", box=None, pad_edge=False)
        for setting in about["config"]:
            default = "(must be given)" if setting["default"] is None else setting["default"]
            cells = (setting["name"], setting["type"], default, setting["range"], setting["description"])
            settings.add_row(*(plain(cell) for cell in cells))
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
