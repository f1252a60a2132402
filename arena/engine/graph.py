"""The graph a plan is: stages named by content, cells that need them, and what of it the store already holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from arena.engine.estimate import Estimator
from arena.plugins.describe import Document
from arena.store.local import Store
from arena.store.manifest import content_key
from arena.suites.schema import Suite

StageKind = Literal["data", "zero-shot", "release", "stealth", "fit", "purified", "fine-tuned", "scored"]

STAGE_VERSION: dict[StageKind, int] = {
    "data": 1,
    "zero-shot": 1,
    "release": 1,
    "stealth": 1,
    "fit": 1,
    "purified": 1,
    "fine-tuned": 1,
    "scored": 1,
}
"""Raised when the harness's part of a stage changes what it writes; plugins' changes show in source digests."""


@dataclass(frozen=True)
class Stage:
    """One artifact to be: `document` is all its computation needs beside the store."""

    kind: StageKind
    key: str
    document: Document = field(repr=False)
    label: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keys of the stages it reads."""
        return tuple(self.document["inputs"].values())


@dataclass(frozen=True)
class Cell:
    """One combination of a suite: `facts` are the fields of its record known beforehand, `stages` its keys by role."""

    key: str
    label: str
    facts: Document = field(repr=False)
    stages: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """Cells in the suite's order, and every stage once, before those that read it."""

    suite: Suite
    digest: str
    cells: tuple[Cell, ...]
    stages: dict[str, Stage] = field(repr=False)
    store: Store = field(repr=False)

    @cached_property
    def cached(self) -> frozenset[str]:
        """Keys of the stages that are in the store."""
        return frozenset(key for key in self.stages if key in self.store)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Estimated seconds of each stage, from what like stages took before, else from stated defaults."""
        estimator = Estimator(self.store.manifests())
        return {key: estimator.seconds(stage.document) for key, stage in self.stages.items()}

    def missing(self, cells: Iterable[Cell] | None = None) -> list[Stage]:
        """Stages of `cells` (all where None) that are not in the store, in an order in which they can be computed."""
        wanted = {key for cell in (self.cells if cells is None else cells) for key in cell.stages.values()}
        for stage in reversed(self.stages.values()):
            if stage.key in wanted:
                wanted.update(stage.inputs)
        return [s for s in self.stages.values() if s.key in wanted and s.key not in self.cached]


def make_stage(kind: StageKind, label: str, document: Document, inputs: Mapping[str, str]) -> Stage:
    """The stage of a document, completed by its kind, the harness's version and the keys it reads."""
    whole = {"kind": kind, "stage_version": STAGE_VERSION[kind], **document, "inputs": dict(inputs)}
    return Stage(kind, content_key(whole), whole, label)
