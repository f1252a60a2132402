"""Where trials happen: a folder each, which is kept where something failed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.chaos.campaign import Failure, Trial
from tests.chaos.toy_runs import Hung, Place, Reference, reference


@dataclass
class Bench:
    """Trials of one campaign below `folder`; what failed is moved into `kept`."""

    folder: Path
    kept: Path

    @cached_property
    def reference(self) -> Reference:
        """An undisturbed run."""
        return reference(self.folder / "undisturbed")

    def trial(self, kind: str, seed: str, act: Callable[[random.Random, Place], tuple[int, list[str]]]) -> Trial:
        """One trial: `act` disturbs runs in a place of its own, and returns how often, and what is wrong then."""
        _ = self.reference
        place = Place(self.folder / f"{kind}-{seed}")
        try:
            tried, problems = act(random.Random(f"{kind}:{seed}"), place)
        except Hung as hung:
            tried, problems = 1, [str(hung)]
        finally:
            place.clear()
        kept = self.keep(place.folder) if problems else ""
        shutil.rmtree(place.folder, ignore_errors=True)
        return Trial(max(tried, 1) if problems else tried, [Failure(seed, problems, kept)] if problems else [])

    def keep(self, path: Path) -> str:
        """Copy a file or folder to where it stays, and where that is."""
        target = self.kept / path.name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, target)
        return str(target)
