"""What a stage works with: its inputs, its plugins, and the world of each party, with what the plan granted in it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import AttackerWorld, DefenderWorld, ModelSource, Plugin
from arena.plugins.registry import Kind, Registry
from arena.release import read_release
from arena.store.local import Store, StoreError

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

Document = dict[str, Any]

_PARSING = threading.Lock()
"""CPython 3.11 fails when two threads build syntax trees at a time (python/cpython issue 106905)."""


@dataclass(frozen=True)
class Job:
    """What a stage function works with; `folder` becomes the artifact."""

    document: Document
    store: Store
    folder: Path
    key: str

    def create(self, kind: Kind, document: Document | None = None) -> Plugin:
        """The plugin of a document (by default the stage's own of that kind), of the source that the plan saw."""
        wanted = self.document[kind] if document is None else document
        return create(kind, wanted)

    def path(self, name: str) -> Path:
        """The folder of an input, digests checked."""
        return self.store.require(self.document["inputs"][name])

    def samples(self, name: str) -> tuple[Sample, ...]:
        """The samples of an input; their pictures do not know the files they came from."""
        return tuple(read_release(self.path(name) / "samples"))

    def write(self, name: str, content: Any) -> None:
        """A JSON file of the artifact."""
        (self.folder / name).write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")


def create(kind: Kind, document: Document) -> Plugin:
    """The plugin a plan's document names. Raises `ArenaError` if its source is not what the plan was made from."""
    registry = Registry()
    with _PARSING:
        source = registry.get(kind, document["id"]).source_digest()
    if source != document["source"]:
        raise StoreError(
            f"{kind} {document['id']!r}: its source here is not the source that the plan was made from; run again once "
            "files have stopped changing, and install the same packages on every worker"
        )
    return registry.create(kind, document["id"], document["config"])


def load_model(document: Document) -> LVLM:
    """The LVLM of a plan's model document, freshly loaded."""
    return cast(ModelSource, create("model", document)).load()


def load_models(documents: Sequence[Document]) -> tuple[LVLM, ...]:
    """The LVLMs of several documents, in order."""
    return tuple(map(load_model, documents))


def defender_world(job: Job, budget: Budget, models: Callable[[], tuple[LVLM, ...]] | None) -> DefenderWorld:
    """The data owner's world of a release stage."""
    d = job.document
    return DefenderWorld(
        budget,
        seed=party_seed("defense", d["seed"]) if "seed" in d else None,
        surrogates=models,
        auxiliary=job.samples("auxiliary") if "auxiliary" in d["inputs"] else None,
        workspace=job.store.workspace(job.key),
    )


def attacker_world(job: Job, grants: Document, suffix: str = "") -> AttackerWorld:
    """The fine-tuner's world; `grants` is the plan's document of an attack, `suffix` marks its inputs."""
    inputs = job.document["inputs"]
    auxiliary, fitted = f"auxiliary{suffix}", f"fitted{suffix}"
    return AttackerWorld(
        seed=party_seed("attack", grants["seed"]) if "seed" in grants else None,
        model=partial(load_model, grants["model"]) if "model" in grants else None,
        auxiliary=job.samples(auxiliary)[: grants["granted"]] if auxiliary in inputs else None,
        fitted=job.path(fitted) if fitted in inputs else None,
    )


def party_seed(party: str, seed: int) -> int:
    """A party's own 32-bit seed, so that the attacker's does not give away the defender's draws."""
    return int.from_bytes(hashlib.sha256(f"{party}:{seed}".encode()).digest()[:4], "big")
