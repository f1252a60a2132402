"""``python -m attacks.image.zoo WORK OUT``: trains the diffusion model in WORK, goes on where it stopped there, and
writes it to OUT as shipped."""

from __future__ import annotations

import sys
from pathlib import Path

from attacks.image.zoo.pack import pack
from attacks.image.zoo.train_ddpm import Training


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m attacks.image.zoo WORK OUT")
    pack(Training(Path(sys.argv[1]), say), Path(sys.argv[2]), say)
