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
    emoji: Annotated[
        Path | None, typer.Option("--emoji", help="Archive or folder of the npm package of emojis that is trained on.")
    ] = None,
    stamps: Annotated[Path | None, typer.Option("--stamps", help="Folder of Tux Paint's stamps.")] = None,
    clip_art: Annotated[Path | None, typer.Option("--clip-art", help="Folder of Open Clip Art.")] = None,
    device: Annotated[str, typer.Option("--device", help="Where the model is trained, such as cuda.")] = "cpu",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that make batches.")] = 0,
) -> None:
    """Train a tiny model from its seed and pack it; goes on where an earlier call was interrupted.

    Besides scenes it is trained on pictures that people made, which do not come with the arena: emojis by `npm pack`,
    stamps and clip art by `apt-get install`. A source that is not there is named, with the command that fetches it.
    """
    from arena.environment import quiet_libraries
    from arena.errors import UsageError

    quiet_libraries()
    from arena.lvlm.zoo.models import TINY
    from arena.lvlm.zoo.pack import pack
    from arena.lvlm.zoo.pictures import Sources, pretraining_pictures
    from arena.lvlm.zoo.train import Training
    from arena.plugins.registry import near_misses

    if name not in TINY:
        raise UsageError(f"no tiny model is called {name!r}: see `arena zoo list`{near_misses(name, TINY)}")
    folder = out or Path("zoo") / name
    given = {"emoji": emoji, "stamps": stamps, "clip_art": clip_art}
    pictures = pretraining_pictures(Sources(**{what: path for what, path in given.items() if path}))
    training = Training(TINY[name], folder / "checkpoints", pictures, typer.echo, device, workers)
    training.run()
    pack(training, folder / name, typer.echo)
    typer.echo(f"packed in {folder / name}")
