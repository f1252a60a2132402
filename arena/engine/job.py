"""What a stage works with: its inputs, and the world of each party, with what the plan granted in it.

Every party's world is built here, from what its plugin declares and the plan granted, and from nothing else: no object
handed to a plugin leads to the test data, to a clean original (attacker) or to an attack (defender).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.spec import PluginSpec, load_model
from arena.plugins.worlds import AttackerWorld, DefenderWorld
from arena.release import read_release
from arena.store.local import Store

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

Progress = Callable[[float, str], None]
"""Told the share done, 0 to 1, and a note."""


@dataclass(frozen=True)
class Grants:
    """What an attack is handed beside the samples: nothing that it does not need. `granted` is the number of its own
    clean samples."""

    seed: int | None = None
    model: PluginSpec | None = None
    granted: int | None = None


@dataclass(frozen=True)
class Job:
    """What a stage computes with: `inputs` are the keys of artifacts by the stage's fields, `folder` becomes the
    artifact of `key`."""

    inputs: Mapping[str, str]
    store: Store
    folder: Path
    key: str
    progress: Progress

    def path(self, name: str) -> Path:
        """The folder of an input, digests checked."""
        return self.store.require(self.inputs[name])

    def samples(self, name: str) -> tuple[Sample, ...]:
        """The samples of an input; their pictures do not know the files they came from."""
        return tuple(read_release(self.path(name) / "samples"))

    def write(self, name: str, content: Any) -> None:
        """A JSON file of the artifact."""
        (self.folder / name).write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")


def defender_world(
    job: Job, budget: Budget, seed: int | None, models: Callable[[], tuple[LVLM, ...]] | None
) -> DefenderWorld:
    """The data owner's world of a release stage."""
    return DefenderWorld(
        budget,
        seed=None if seed is None else party_seed("defense", seed),
        surrogates=models,
        auxiliary=job.samples("auxiliary") if "auxiliary" in job.inputs else None,
        workspace=job.store.workspace(job.key),
        progress=job.progress,
    )


def attacker_world(job: Job, grants: Grants, prefix: str = "") -> AttackerWorld:
    """The fine-tuner's world; `prefix` marks the inputs of a part of a stage."""
    auxiliary, fitted = f"{prefix}auxiliary", f"{prefix}fitted"
    return AttackerWorld(
        seed=None if grants.seed is None else party_seed("attack", grants.seed),
        model=None if grants.model is None else partial(load_model, grants.model),
        auxiliary=job.samples(auxiliary)[: grants.granted] if auxiliary in job.inputs else None,
        fitted=job.path(fitted) if fitted in job.inputs else None,
        progress=job.progress,
    )


def party_seed(party: str, seed: int) -> int:
    """A party's own 32-bit seed, so that the attacker's does not give away the defender's draws."""
    return int.from_bytes(hashlib.sha256(f"{party}:{seed}".encode()).digest()[:4], "big")
