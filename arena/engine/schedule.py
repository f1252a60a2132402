"""How a run would go on so many workers: its own order of stages, simulated from the seconds that each takes.

Nothing is in it of what a run takes beside its stages: to choose the next one, to move artifacts, to start workers.
Every worker computes one stage at a time, of any kind, as fast as the others: fine-tunings that a run would pack, and
keep waiting for each other while there is something else to do, are computed one by one in the suite's order.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arena.engine.cost import PEAK, UTILISATION, CostModel
from arena.engine.estimate import Estimator
from arena.engine.graph import Cell, Plan
from arena.engine.order import crafts_next, place, ranks
from arena.engine.stages import KINDS, Stage
from arena.errors import UsageError
from arena.records.schema import LabelledRef, PluginRef, Record
from arena.store.manifest import Manifest
from arena.suites.yaml_lines import read_yaml


@dataclass(frozen=True)
class Schedule:
    """A simulated run: `seconds` from its start to its end, and `work`, seconds of stages by their kind. `chain` are
    the stages that take longest one after the other, `chain_seconds` how long: no number of workers is faster."""

    workers: int
    seconds: float
    work: Mapping[str, float]
    chain: tuple[tuple[Stage, float], ...]

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.work.values())

    @property
    def chain_seconds(self) -> float:
        """Seconds of the longest chain."""
        return sum(seconds for _, seconds in self.chain)

    @property
    def efficiency(self) -> float:
        """The share of the workers' time in which they compute, 0 to 1."""
        return self.total / (self.workers * self.seconds) if self.seconds else 1.0

    @property
    def useful(self) -> float:
        """How many workers take as long for all the work as the longest chain takes: with more, most wait for it."""
        return self.total / self.chain_seconds if self.chain_seconds else 0.0


def simulate(
    plan: Plan, cells: Sequence[Cell], stages: Sequence[Stage], seconds: Mapping[str, float], workers: int
) -> Schedule:
    """Compute `stages`, those that cells of the plan lack, each after those it reads, on so many workers: each takes
    its `seconds`, by its name, and the order is the run's (`arena.engine.order`), which has the plan's estimates."""
    closure = {cell.key: plan.closure(cell.stages.values()) for cell in cells}
    rank, index = ranks(cells, closure), {stage.name: number for number, stage in enumerate(stages)}
    waits, readers = Counter[str](), defaultdict[str, list[Stage]](list)
    for stage in stages:
        for name in {link.stage for link in stage.inputs.values()} & index.keys():
            waits[stage.name] += 1
            readers[name].append(stage)
    ready = _Ready(plan, rank, index, workers)
    for stage in stages:
        if not waits[stage.name]:
            ready.add(stage)
    now, running = 0.0, list[tuple[float, int]]()
    while ready or running:
        while len(running) < workers and ready:
            started = ready.take()
            heapq.heappush(running, (now + seconds[started.name], index[started.name]))
        now, number = heapq.heappop(running)
        ready.ended(ended := stages[number])
        for reader in readers[ended.name]:
            waits[reader.name] -= 1
            if not waits[reader.name]:
                ready.add(reader)
    work = defaultdict[str, float](float)
    for stage in stages:
        work[stage.kind] += seconds[stage.name]
    return Schedule(workers, now, dict(work), _longest(stages, seconds))


class _Ready:
    """The stages that could start, and how many of those that run craft releases."""

    def __init__(self, plan: Plan, rank: Mapping[str, int], index: Mapping[str, int], slots: int) -> None:
        self._plan, self._rank, self._index, self._slots = plan, rank, index, slots
        self._releases: list[tuple[tuple[float, int], int, Stage]] = []
        self._others: list[tuple[tuple[float, int], int, Stage]] = []
        self._crafting = 0

    def __bool__(self) -> bool:
        return bool(self._releases or self._others)

    def add(self, stage: Stage) -> None:
        where = place(stage.kind, self._plan.seconds[stage.name], self._rank[stage.name])
        heap = self._releases if stage.kind == "release" else self._others
        heapq.heappush(heap, (where, self._index[stage.name], stage))

    def take(self) -> Stage:
        crafts = crafts_next(bool(self._releases), bool(self._others), self._crafting, self._slots)
        self._crafting += crafts
        return heapq.heappop(self._releases if crafts else self._others)[2]

    def ended(self, stage: Stage) -> None:
        self._crafting -= stage.kind == "release"


def _longest(stages: Sequence[Stage], seconds: Mapping[str, float]) -> tuple[tuple[Stage, float], ...]:
    """The chain of stages that takes longest; `stages` are in an order in which they can be computed."""
    until: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for stage in stages:
        first = max((link.stage for link in stage.inputs.values() if link.stage in until), key=until.get, default=None)  # type: ignore[arg-type]
        before[stage.name] = first
        until[stage.name] = seconds[stage.name] + (until[first] if first is not None else 0.0)
    named, chain = {stage.name: stage for stage in stages}, list[tuple[Stage, float]]()
    last = max(until, key=until.__getitem__, default=None)
    while last is not None:
        chain.append((named[last], seconds[last]))
        last = before[last]
    return tuple(reversed(chain))


def expected(
    plan: Plan, stages: Iterable[Stage], records: Iterable[Record], model: CostModel | None
) -> dict[str, float]:
    """Seconds of each stage by its name: by the cost model on one of its GPUs where one is given and the stage runs a
    model, else the plan's estimate; where the store is empty, as `records` say of like stages."""
    empty = next(plan.store.manifests(), None) is None
    like = Estimator(_measured(records)) if empty else None
    seconds = {}
    for stage in stages:
        flops = 0.0 if model is None else stage.flops(model)
        measured = plan.seconds[stage.name] if like is None else like.seconds(stage)
        seconds[stage.name] = flops / (PEAK * UTILISATION) or measured
    return seconds


def _measured(records: Iterable[Record]) -> Iterable[Manifest]:
    """What records say of how long stages took, as the manifests of their artifacts do."""
    for record in records:
        model, defense, recipe = (_document(part) for part in (record.model, record.defense, record.recipe))
        size, parts = record.dataset.train, record.attack.parts
        for kind, cost, plugins in (
            ("release", record.cost.protect, {"defense": defense}),
            ("purified", record.cost.purify, {"attack": _document(parts[0])} if len(parts) == 1 else None),
            ("fine-tuned", record.cost.finetune, {"model": model, "recipe": recipe}),
        ):
            if cost is not None and plugins is not None:
                document = {"kind": kind, "size": size, **plugins}
                yield Manifest.model_construct(kind=kind, document=document, seconds=cost.seconds)


def _document(part: PluginRef | LabelledRef) -> dict[str, object]:
    return {"id": part.id, "config": part.config}


def stated(file: Path, stages: Iterable[Stage]) -> dict[str, float]:
    """Seconds of the stages that a YAML file states, by their names: a line ``KIND: SECONDS``, or ``KIND ID: SECONDS``
    for stages of the kind in which that plugin runs. The first line that fits a stage counts.

    Raises `UsageError` for what is no such file.
    """
    document = read_yaml(file)
    if not isinstance(document.data, dict):
        raise UsageError(f"{file}: state seconds by kind of stage, such as `fine-tuned: 600` or `release em: 3600`")
    kinds = [kind.kind for kind in KINDS]
    lines = defaultdict[str, list[tuple[str, float]]](list)
    for key, value in document.data.items():
        kind, _, plugin = str(key).partition(" ")
        if kind not in kinds:
            raise UsageError(f"{document.where((key,))}: no stage is of kind {kind!r}; there are {', '.join(kinds)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UsageError(f"{document.where((key,))}: {value!r} is no number of seconds")
        lines[kind].append((plugin.strip(), float(value)))
    found: dict[str, float] = {}
    for stage in stages:
        for plugin, value in lines[stage.kind]:
            if not plugin or any(spec.id == plugin for spec in stage.plugins().values()):
                found[stage.name] = value
                break
    return found
