"""The graph a plan is: stages by name, cells that need them, and what of it the store already holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from arena.engine.estimate import Estimator
from arena.engine.stages import Stage
from arena.engine.worker import Task
from arena.records.schema import Asked
from arena.store.local import MissingArtifact, Store
from arena.store.manifest import content_of
from arena.suites.schema import Suite


@dataclass(frozen=True)
class Cell:
    """One combination of a suite: what it asks, the names of its stages by role, and of those between release and
    purified samples in their order, with what was fitted for them."""

    asked: Asked
    label: str
    stages: dict[str, str] = field(repr=False)
    chain: tuple[str, ...] = field(repr=False)

    @property
    def key(self) -> str:
        """The cell's name, see `arena.plugins.identity`."""
        return self.asked.identity


@dataclass(frozen=True)
class Broken:
    """A cell of a plugin that cannot be described, and what is wrong with that."""

    label: str
    problem: str


class Artifacts:
    """Which artifacts of a plan's stages are there, as far as it can be known: the key of a stage follows from the
    contents of its inputs."""

    def __init__(self, stages: dict[str, Stage], store: Store) -> None:
        self._stages, self._store = stages, store
        self._contents: dict[tuple[str, str], str] = {}
        self.keys: dict[str, str] = {}
        """Keys of the stages that are done, by name."""

    def look(self) -> None:
        """Find all that is there."""
        for stage in self._stages.values():
            if self.ready(stage) and (key := self.task(stage).key) in self._store:
                self.keys[stage.name] = key

    def ready(self, stage: Stage) -> bool:
        """Whether all that a stage reads is done."""
        return all(link.stage in self.keys for link in stage.inputs.values())

    def task(self, stage: Stage) -> Task:
        """A stage that is ready, with its key. Raises `MissingArtifact` where an input is gone."""
        inputs = {role: self.keys[link.stage] for role, link in stage.inputs.items()}
        contents = {role: self._content(inputs[role], link.output) for role, link in stage.inputs.items()}
        return Task(stage, stage.key(contents), inputs)

    def _content(self, key: str, output: str) -> str:
        if (key, output) not in self._contents:
            manifest = self._store.look(key)
            if manifest is None:
                raise MissingArtifact(key)
            self._contents[key, output] = content_of(manifest, output)
        return self._contents[key, output]

    def forget(self, key: str) -> list[str]:
        """An artifact is gone: names of the stages that it was, which are not done any more. What it holds may be
        another thing when it is computed again."""
        self._contents = {known: digest for known, digest in self._contents.items() if known[0] != key}
        gone = [name for name, own in self.keys.items() if own == key]
        for name in gone:
            del self.keys[name]
        return gone


@dataclass(frozen=True)
class Plan:
    """Cells in the suite's order, and every stage once, by name, before those that read it."""

    suite: Suite
    digest: str
    cells: tuple[Cell, ...]
    stages: dict[str, Stage] = field(repr=False)
    store: Store = field(repr=False)
    broken: tuple[Broken, ...] = ()
    """Cells that could not be planned."""

    def artifacts(self) -> Artifacts:
        """What the store holds now."""
        found = Artifacts(self.stages, self.store)
        found.look()
        return found

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Estimated seconds of each stage, from what like stages took before, else from stated defaults."""
        estimator = Estimator(self.store.manifests())
        return {name: estimator.seconds(stage) for name, stage in self.stages.items()}

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """Those stages and all that they are made from."""
        wanted, waiting = set[str](), list(names)
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting += [link.stage for link in self.stages[name].inputs.values()]
        return frozenset(wanted)

    def missing(self, cells: Iterable[Cell] | None = None) -> list[Stage]:
        """Stages of `cells` (all where None) that are not known to be in the store, in an order in which they can be
        computed."""
        wanted = self.closure(
            name for cell in (self.cells if cells is None else cells) for name in cell.stages.values()
        )
        done = self.artifacts().keys
        return [s for s in self.stages.values() if s.name in wanted and s.name not in done]
