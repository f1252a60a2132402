"""`arena new` and `arena check`: for authors of plugins."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arena.cli.audits import UNDECIDED
from arena.cli.console import plain, stderr, stdout, table
from arena.cli.options import possible, read_settings

if TYPE_CHECKING:
    from arena.kit.outcome import Report

commands = typer.Typer()


class PluginKind(StrEnum):
    """What a package can be made for."""

    DEFENSE = "defense"
    ATTACK = "attack"
    RECIPE = "recipe"
    DATASET = "dataset"
    MODEL = "model"


@commands.command()
def new(
    kind: Annotated[PluginKind, typer.Argument(help="What the package's plugin is.")],
    name: Annotated[str, typer.Argument(help="Its id: lower case letters, digits and hyphens.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", callback=possible, help="Where to write it; by default ./NAME.")
    ] = None,
) -> None:
    """Write a package with a plugin that works: entry point, class, tests, a suite. Change it from there."""
    from arena.kit.new import write_package

    written = write_package(kind.value, name, folder)
    out = stdout()
    for path in written.files:
        out.print(f"{written.folder / path}", soft_wrap=True)
    folder_word = shlex.quote(str(written.folder))
    out.print(f"next: pip install -e {folder_word}, then `arena check {kind.value}/{name}`", soft_wrap=True)


@commands.command()
def check(
    plugin: Annotated[str, typer.Argument(help="A plugin's id, or KIND/ID where two kinds have one.")],
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="KEY=VALUE", help="A setting; may be repeated.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="CHECK", help="Only these checks.")] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", callback=possible, help="Write JUnit XML, too.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="What the plugin may take for one stage.")] = 300,
) -> None:
    """Try a plugin: contract, budget, determinism, firewall, edge cases, every family. Exits 1 where something fails,
    3 where nothing could be tried."""
    from arena.files import refuse_foreign, write_atomically
    from arena.kit.check import check_plugin

    if junit is not None:
        refuse_foreign(junit, "a JUnit file", b"<testsuites>")
    settings = read_settings(config or [])
    with stderr().status("") as status:
        report = check_plugin(
            plugin, settings, only or (), seconds=seconds, tell=lambda name: status.update(plain(name))
        )
    _show(report)
    if junit is not None:
        write_atomically(junit, report.junit())
    if not report.passed:
        raise typer.Exit(1 if report.failures else UNDECIDED)


def _show(report: Report) -> None:
    out = stdout()
    shown = table("check", "", "seconds", "seen")
    colours = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
    for outcome in report.outcomes:
        said = "see below" if outcome.status == "failed" else outcome.said
        shown.add_row(outcome.check, plain(outcome.status, colours[outcome.status]), f"{outcome.seconds:.1f}", said)
    out.print(shown)
    for outcome in report.failures:
        out.print(plain(f"\n{outcome.check}", "bold"))
        out.print(outcome.said, soft_wrap=True)
        out.print(f"look at {outcome.where}", soft_wrap=True)
    counts = [f"{sum(o.status == status for o in report.outcomes)} {status}" for status in colours]
    out.print(f"{report.name}: {', '.join(counts)}", soft_wrap=True)
