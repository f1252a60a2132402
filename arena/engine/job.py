"""What a stage works with: the harness at its `Job`, and at a `Desk`, in a process of its own, each party in a world of
what the plan granted.

Every party's world is built here, from what its plugin declares and the plan granted, and from nothing else: no object
handed to a plugin leads to the test data, to a clean original (attacker) or to an attack (defender).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.spec import PluginSpec, load_model
from arena.plugins.worlds import AttackerWorld, DefenderWorld
from arena.release import read_release, write_release
from arena.store.local import Store

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

NOTES, NOTES_FILE = "notes", "notes.json"
"""The output of what an attack noted while it purified, a folder, and the file in it."""

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
    """What the harness computes a stage with: `inputs` are the keys of artifacts by the stage's fields, `folder`
    becomes the artifact of `key`."""

    inputs: Mapping[str, str]
    store: Store
    folder: Path
    key: str

    def path(self, name: str) -> Path:
        """The folder of an input, digests checked."""
        return self.store.require(self.inputs[name])

    def samples(self, name: str) -> tuple[Sample, ...]:
        """The samples of an input; their pictures do not know the files they came from."""
        return tuple(read_release(self.path(name) / "samples"))

    def write(self, name: str, content: Any) -> None:
        """A JSON file of the artifact."""
        write_json(self.folder / name, content)


@dataclass(frozen=True)
class Desk:
    """What the process of a stage's plugins works with: copies of what they may know, in `given`, a folder or file an
    input by its field, and the folder `made` for what comes of it."""

    given: Path
    made: Path
    workspace: Path | None
    progress: Progress

    def has(self, name: str) -> bool:
        """Whether there is such an input."""
        return self.path(name).exists()

    def path(self, name: str) -> Path:
        """The folder or file of an input."""
        return self.given / name

    def samples(self, name: str) -> tuple[Sample, ...]:
        """The samples of an input; their pictures do not know the files they came from."""
        return tuple(read_release(self.path(name)))

    def write(self, name: str, content: Any) -> None:
        """A JSON file for the harness."""
        write_json(self.made / name, content)

    def put(self, samples: Iterable[Sample]) -> None:
        """Samples for the harness."""
        write_release(list(samples), self.made / "samples")


def write_json(path: Path, content: Any) -> None:
    """A JSON file with sorted names."""
    path.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")


def defender_world(
    desk: Desk, budget: Budget, seed: int | None, models: Callable[[], tuple[LVLM, ...]] | None
) -> DefenderWorld:
    """The data owner's world of a release stage."""
    return DefenderWorld(
        budget,
        seed=None if seed is None else party_seed("defense", seed),
        surrogates=models,
        auxiliary=desk.samples("auxiliary") if desk.has("auxiliary") else None,
        workspace=desk.workspace,
        progress=desk.progress,
    )


def attacker_world(desk: Desk, grants: Grants, prefix: str = "") -> AttackerWorld:
    """The fine-tuner's world; `prefix` marks the inputs of a part of a stage."""
    auxiliary, fitted, notes = f"{prefix}auxiliary", f"{prefix}fitted", desk.path(f"{prefix}{NOTES}") / NOTES_FILE
    return AttackerWorld(
        seed=None if grants.seed is None else party_seed("attack", grants.seed),
        model=None if grants.model is None else partial(load_model, grants.model),
        auxiliary=desk.samples(auxiliary) if desk.has(auxiliary) else None,
        fitted=desk.path(fitted) if desk.has(fitted) else None,
        progress=desk.progress,
        originals=desk.samples("originals") if desk.has("originals") else None,
        notes=json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else None,
    )


def party_seed(party: str, seed: int) -> int:
    """A party's own 32-bit seed, so that the attacker's does not give away the defender's draws."""
    return int.from_bytes(hashlib.sha256(f"{party}:{seed}".encode()).digest()[:4], "big")
