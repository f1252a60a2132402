"""`arena zoo`: the tiny models that come with the arena."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arena.cli.console import stdout

commands = typer.Typer(help="The tiny models that come with the arena.", no_args_is_help=True)


@commands.command("list")
def list_zoo() -> None:
    """List the tiny models that can be trained here."""
    from rich.table import Table

    from arena.lvlm.zoo.models import TINY

    table = Table("name", "seed", "image", "patch", "words", "steps", box=None, pad_edge=False)
    for name, spec in TINY.items():
        steps = spec.tower_steps + spec.language_steps + spec.joint_steps
        table.add_row(name, *map(str, (spec.seed, spec.image_size, spec.patch_size, spec.vocab_size, steps)))
    stdout().print(table)


@commands.command("train")
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
    from arena.plugins.registry import near_misses

    if name not in TINY:
        raise UsageError(f"no tiny model is called {name!r}: see `arena zoo list`{near_misses(name, TINY)}")
    folder = out or Path("zoo") / name
    training = Training(TINY[name], folder / "checkpoints", typer.echo)
    training.run()
    pack(training, folder / name, typer.echo)
    typer.echo(f"packed in {folder / name}")
