"""A plugin that leaves behind whatever a careless one leaves: a process in a session of its own, and files."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from toys import ToyNoise

from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Pixels


class Litter(ToyNoise):
    """The toy's noise."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        for folder in (Path(tempfile.gettempdir()), Path.cwd(), world.workspace):
            try:
                (folder / "litter.txt").write_text("left", encoding="utf-8")
            except OSError:  # the firewall's doing
                continue
        return super().perturb(samples, world)
