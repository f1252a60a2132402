"""The command line: a thin layer over the packages. Imports what a command needs when it runs."""

from __future__ import annotations

import logging
import signal
import sys
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from arena.cli import audits, boards, kit, owner, plugins, proofs, stress, submissions, suites, zoo
from arena.cli.console import stderr


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:  # before typer leaves without a word
            raise _Stop(*stop.args) from stop


app = typer.Typer(
    name="arena",
    cls=_Commands,
    help="Data protections for vision-language models against the attacks of fine-tuners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (plugins, kit, suites, boards, proofs, audits, submissions, owner, stress):
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


class _Stop(BaseException):
    """The user stopped a command; the message is what the command says is kept."""


def main() -> None:
    """The entry point: an error is a paragraph on standard error; exit code 2 is usage, 1 failure, 130 Ctrl-C, and 143
    SIGTERM, which is heeded in the same way."""
    from arena.errors import ArenaError, UsageError, describe_error

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":  # no console has to know every character
            stream.reconfigure(errors="replace")
    stopped_by = signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = signal.SIGTERM
        raise KeyboardInterrupt

    if ours := signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
        _look_around()
        app()
    except (ArenaError, OSError) as error:  # files and folders that nobody foresaw are no traceback either
        if "--debug" in sys.argv:
            raise
        _say(f"error: {describe_error(error)}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except (_Stop, KeyboardInterrupt) as stop:
        _say(": ".join(filter(None, ("interrupted", str(stop)))))
        sys.exit(128 + stopped_by)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _look_around() -> None:
    """Raises `UsageError` where the folder that relative names are relative to is gone."""
    from arena.errors import UsageError

    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the folder that you are in has been removed: change to another") from None


def _say(paragraph: str) -> None:
    stderr().print(paragraph, soft_wrap=True)
