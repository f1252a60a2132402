"""`arena list` and `arena show`: what is installed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from arena.cli import displays
from arena.cli.console import plain, stdout, table

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
    """List the installed plugins, importing none of them: what each is, the budget that a defense is made for, what it
    needs to know, and its source. `arena check` says whether one works."""
    from arena.plugins.outline import about, facts
    from arena.plugins.registry import BASES, Registry

    registry = Registry()
    listed = table("kind", "id", "package", "about")
    for each in BASES:
        if kind is not None and f"{each}s" != kind:
            continue
        for entry in registry.entries(each):
            found = facts(entry)
            needs = f"needs {', '.join(found.needs)}" if found.needs else ""
            lines = [about(entry), " · ".join(filter(None, (found.budget, needs, found.source)))]
            listed.add_row(each, entry.id, str(entry.origin), "\n".join(filter(None, lines)))
    stdout().print(listed)


@commands.command()
def show(
    id: Annotated[str, typer.Argument(help="A plugin's id.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="For a recipe: a model's id, or ID=CHECKPOINT, to list what it trains in."),
    ] = None,
) -> None:
    """Show a plugin: what it does, its settings, where it comes from; of a recipe also what it trains in a model."""
    from arena.errors import UsageError
    from arena.paths import cache_directory
    from arena.plugins.outline import described
    from arena.plugins.registry import BASES, Registry, near_misses

    registry = Registry()
    known = {kind: {entry.id for entry in registry.entries(kind)} for kind in BASES}
    kinds = [kind for kind in BASES if id in known[kind]]
    if not kinds:
        raise UsageError(f"no plugin is called {id!r}: see `arena list`{near_misses(id, set().union(*known.values()))}")
    out = stdout()
    for kind in kinds:
        about = described(registry.get(kind, id), cache_directory() / "plugins")
        package = f"  {about['origin']['package']} {about['origin']['version']}"
        out.print(plain(f"{kind} {id}", "bold").append_text(plain(package)))
        out.print(about["doc"])
        out.print(f"needs: {', '.join(about['needs']) or 'nothing'} · version {about['version']}")
        out.print(f"source {about['digest']}", soft_wrap=True)
        displays.show_settings(about["config"], out)
    if model is not None:
        if "recipe" not in kinds:
            raise UsageError(
                f"--model lists what a recipe trains, and {id!r} is a {' and a '.join(kinds)}: leave it out"
            )
        displays.show_trained(registry, id, model, out)
    elif "recipe" in kinds:
        out.print(f"arena show {id} --model MODEL lists the modules that it trains, such as --model tiny-llava")
