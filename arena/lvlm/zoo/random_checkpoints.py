"""Tiny checkpoints with random weights, one a family, in the hub's format: real configuration classes at small sizes,
the family's own kind of tokenizer, its picture processor. For tests, and for a dry run of what big models will do.

``python -m arena.lvlm.zoo.random_checkpoints qwen3-vl FOLDER`` writes one.
"""

from __future__ import annotations

import argparse
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from arena.errors import UsageError
from arena.lvlm import families as packages
from arena.lvlm.families.drawing import Draw


@cache
def families() -> dict[str, Draw]:
    """What draws each family's checkpoints, by name: the tables `CHECKPOINTS` of all ``random.py``, put together."""
    found: dict[str, Draw] = {}
    for module in iter_modules(packages.__path__, f"{packages.__name__}."):
        if module.ispkg:
            found |= import_module(f"{module.name}.random").CHECKPOINTS
    return found


def write(family: str, folder: Path, seed: int = 0) -> None:
    """Write a checkpoint of `family` to `folder`, its weights drawn from `seed`.

    Raises `UsageError` for an unknown family.
    """
    if family not in families():
        raise UsageError(f"no family {family!r} among the random checkpoints: choose from {', '.join(families())}")
    for part in families()[family](seed):
        part.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny checkpoint with random weights in the hub's format.")
    parser.add_argument("family", choices=families())
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.family, given.folder, given.seed)


if __name__ == "__main__":
    main()
