"""What the tests of models share: the families' random checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from arena.lvlm.zoo import random_checkpoints


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's random checkpoint, written once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def of(name: str) -> Path:
        if not (root / name).exists():
            random_checkpoints.write(name, root / name)
        return root / name

    return of
