"""The command line: a thin layer over the packages. Imports what a command needs when it runs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from arena.cli import boards, owner, plugins, proofs, suites, zoo
from arena.cli.console import stderr

app = typer.Typer(
    name="arena",
    help="Data protections for vision-language models against the attacks of fine-tuners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (plugins, suites, boards, proofs, owner):
    app.add_typer(group.commands)
app.add_typer(zoo.commands, name="zoo")


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

    handler = RichHandler(console=stderr(), show_path=debug, show_time=debug)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("arena").setLevel(logging.DEBUG if debug else logging.INFO)


def main() -> None:
    """The entry point: an error is a paragraph on standard error; exit code 2 is usage, 1 failure, 130 Ctrl-C."""
    from arena.errors import ArenaError, UsageError

    try:
        app()
    except ArenaError as error:
        if "--debug" in sys.argv:
            raise
        stderr().print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
