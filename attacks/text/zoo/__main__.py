"""Train and pack the paraphraser: ``python -m attacks.text.zoo FOLDER``; a second call goes on with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from attacks.text.zoo.model import Spec
from attacks.text.zoo.pack import pack
from attacks.text.zoo.train_paraphraser import Training


def main() -> None:
    parser = argparse.ArgumentParser(prog="attacks.text.zoo", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the checkpoints and of the packed model")
    given = parser.parse_args()
    training = Training(Spec(), given.folder / "checkpoints")
    training.run()
    pack(training, given.folder / "paraphraser")


if __name__ == "__main__":
    main()
