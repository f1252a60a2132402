"""Whether plugins compute the same thing twice, and whether datasets heed their seed; nothing of it is recorded.

The second time every stage is computed from the same inputs, by processes that are forked from an interpreter of their
own: memory lies elsewhere, the clock has gone on, and sets are in another order, since texts are hashed otherwise.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from os import cpu_count
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from arena.data.sample import Sample, digest
from arena.engine.again import scratch
from arena.engine.graph import Artifacts, Plan
from arena.engine.harvest import shared_samples
from arena.engine.plan import plan
from arena.engine.pools import bounds_of
from arena.engine.stages import Data, Purify, Release, Stage
from arena.engine.stages.base import SAMPLES
from arena.engine.worker import Result, Task, run_task
from arena.isolation import surroundings
from arena.isolation.call import Cancel
from arena.plugins.identity import CONTROL
from arena.plugins.registry import Registry
from arena.release import read_release
from arena.store.local import Store, StoreError
from arena.store.manifest import Manifest
from arena.suites.parts import Limits
from arena.suites.schema import Suite

_SHOWN = 5
_OTHER_SEEDS = 3
"""How many other seeds of a dataset are tried: one may not be able to draw it."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with one stage: its kind and label, the plugin, such as ``defense 'em'``, and what to say of it."""

    kind: Literal["differs", "failed", "ignores its seed"]
    stage: str
    plugin: str
    problem: str

    def __str__(self) -> str:
        return f"{self.plugin}, {self.stage}: {self.problem}"


@dataclass
class Determinism:
    """Which stages were computed twice, and what was found."""

    stages: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def deterministic(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def check_determinism(
    suite: Suite, registry: Registry, count: int, console: Console, seed: int = 0, workers: int | None = None
) -> Determinism:
    """Compute at most `count` release stages and as many purifications of a validated suite twice, with what was fitted
    for them and the datasets that they read, and draw every dataset by two seeds.

    Which stages these are is drawn by `seed`, one of every plugin first. Raises `StoreError` where there is no room to
    compute in, `UnresolvedRevision` for a hub id out of reach.
    """
    report = Determinism()
    with scratch() as place:
        whole = plan(suite, registry, Store(place / "once"), apart=True)
        for problem in dict.fromkeys(broken.problem for broken in whole.broken):
            report.findings.append(Finding("failed", "plan", "a plugin", problem))
        chosen = choose(whole, count, seed)
        wanted = whole.closure(stage.name for stage in chosen)
        data = [stage for stage in whole.stages.values() if isinstance(stage, Data)]
        twice = [s for s in whole.stages.values() if s.name in {c.name for c in chosen} or s in data]
        console.print(f"{len(twice)} stages are computed twice", markup=False)
        stages = [s for s in whole.stages.values() if s.name in wanted or s in data]
        once = compute_stages(stages, whole.store, suite.limits, workers)
        failures = {(s.plugin, once.failed[s.name]): s for s in reversed(stages) if s.name in once.failed}
        report.findings += [_finding("failed", stage, once.failed[stage.name]) for stage in failures.values()]
        done = [stage for stage in twice if stage.name in once.keys]
        report.stages = [f"{stage.kind} {stage.label}" for stage in done]
        report.findings += _computed_again(done, once, place, suite.limits, workers)
        report.findings += _overlapping([stage for stage in data if stage.name in once.keys], once)
        draws = {_asked(stage): stage for stage in data if stage.split == "train" and stage.name in once.keys}
        report.findings += _ignoring(draws.values(), once, place, suite.limits, workers)
    return report


def choose(whole: Plan, count: int, seed: int) -> list[Stage]:
    """Random releases and purifications, at most `count` of each, with the stages that fit for these; one of every
    plugin comes before a second one, and purifications of what is computed anyhow before those of other releases."""
    rng = random.Random(seed)
    crafted = [s for s in whole.stages.values() if isinstance(s, Release) and s.defense.id != CONTROL]
    releases = _each_first(rng.sample(crafted, len(crafted)))[:count]
    free = {s.name for s in whole.stages.values() if isinstance(s, Release) and (s in releases or s not in crafted)}

    def dear(stage: Stage) -> bool:
        return any(isinstance(whole.stages[n], Release) and n not in free for n in whole.closure([stage.name]))

    purified: list[Stage] = [s for s in whole.stages.values() if isinstance(s, Purify)]
    purified = _each_first(sorted(rng.sample(purified, len(purified)), key=dear))[:count]
    fits = dict.fromkeys(s.fitted.stage for s in purified if isinstance(s, Purify) and s.fitted is not None)
    return [*releases, *(whole.stages[name] for name in fits), *purified]


def _each_first(stages: Sequence[Stage]) -> list[Stage]:
    """Stages in their order, those of plugins that were there before behind all others."""
    seen: set[str] = set()
    first: list[Stage] = []
    rest: list[Stage] = []
    for stage in stages:
        (rest if stage.plugin in seen else first).append(stage)
        seen.add(stage.plugin)
    return first + rest


@dataclass
class Computed:
    """Stages in a store: the keys of those that are done, and why others failed, by name."""

    store: Store
    keys: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def samples(self, stage: Stage) -> list[Sample]:
        """The samples that a stage left."""
        return read_release(self.store.require(self.keys[stage.name]) / SAMPLES)

    def manifest(self, stage: Stage) -> Manifest:
        """What is known of what a stage left."""
        found = self.store.manifest(self.keys[stage.name])
        assert found is not None
        return found


def compute_stages(
    stages: Iterable[Stage], store: Store, limits: Limits, workers: int | None = None, isolated: bool = True
) -> Computed:
    """Compute stages, with all that they read among them, into a store. What a stage that failed was needed for is
    neither done nor failed. Raises `StoreError`."""
    left = list(stages)
    artifacts = Artifacts({stage.name: stage for stage in left}, store)
    computed = Computed(store, artifacts.keys)
    while ready := [stage for stage in left if artifacts.ready(stage)]:
        left = [stage for stage in left if stage not in ready]
        tasks = [artifacts.task(stage) for stage in ready]
        results = _run([(task, store) for task in tasks], limits, workers, isolated)
        for task, result in zip(tasks, results, strict=True):
            if result.status == "done":
                artifacts.keys[task.stage.name] = task.key
            else:
                computed.failed[task.stage.name] = result.message
    return computed


def _run(
    tasks: Sequence[tuple[Task, Store]], limits: Limits, workers: int | None = None, isolated: bool = True
) -> list[Result]:
    """Run tasks side by side, each into a store of its own choice."""
    slots = workers or cpu_count() or 1
    bounds = bounds_of(limits, slots)
    if not isolated:
        return [_usable(run_task(task, store.url, bounds, isolated=False)) for task, store in tasks]
    cancels = [Cancel() for _ in tasks]
    with ThreadPoolExecutor(slots, thread_name_prefix="stage") as pool:
        futures = [
            pool.submit(run_task, task, store.url, bounds, cancel=cancel)
            for (task, store), cancel in zip(tasks, cancels, strict=True)
        ]
        try:
            return [_usable(future.result()) for future in futures]
        except BaseException:
            for future, cancel in zip(futures, cancels, strict=True):
                future.cancel()
                cancel()
            raise


def _usable(result: Result) -> Result:
    if result.status in ("unusable", "missing"):
        raise StoreError(result.message)
    return result


def _computed_again(
    stages: Sequence[Stage], once: Computed, place: Path, limits: Limits, workers: int | None
) -> Iterator[Finding]:
    """What comes out otherwise when stages are computed again from the same inputs, each in a store of its own."""
    with _interpreter(hash_seed=1):
        again = _copies(stages, once, place / "again", limits, workers)
    wrong = {s.name: problem for s in stages if (problem := _problem(once, again, s)) is not None}
    suspects = [s for s in stages if s.name in wrong and s.name in again[s.name].keys]
    with _interpreter(hash_seed=0):
        third = _copies(suspects, once, place / "third", limits, workers) if suspects else {}
    for stage in stages:
        if stage.name not in wrong:
            continue
        if stage.name in third and _problem(once, third, stage) is None:
            why = (
                "it depends on the order of a set or on hash(), which only PYTHONHASHSEED holds still: sort what comes "
                "out of a set"
            )
        else:
            why = (
                "draw from the seed alone, with world.rng() or a generator that is made of world.seed, and from "
                "nothing else: no clock, no os.urandom, no id()"
            )
        yield _finding("differs", stage, f"{wrong[stage.name]} when computed again; {why}")


def _problem(once: Computed, again: Mapping[str, Computed], stage: Stage) -> str | None:
    other = again[stage.name]
    if stage.name in other.failed:
        return f"it is done once and fails ({other.failed[stage.name]})"
    return differences(once, other, stage)


def _copies(
    stages: Sequence[Stage], once: Computed, place: Path, limits: Limits, workers: int | None
) -> dict[str, Computed]:
    """Each stage in a fresh store that holds nothing but its inputs, as they were made `once`."""
    found: dict[str, Computed] = {}
    tasks: list[tuple[Task, Store]] = []
    for number, stage in enumerate(stages):
        store = Store(place / str(number))
        for link in stage.inputs.values():
            folder = once.store.require(once.keys[link.stage])
            target = store.folder / folder.relative_to(once.store.folder)
            if not target.exists():
                shutil.copytree(folder, target)
        artifacts = Artifacts({stage.name: stage}, store)
        artifacts.keys |= {link.stage: once.keys[link.stage] for link in stage.inputs.values()}
        tasks.append((artifacts.task(stage), store))
        found[stage.name] = Computed(store)
    for (task, _), result in zip(tasks, _run(tasks, limits, workers), strict=True):
        if result.status == "done":
            found[task.stage.name].keys[task.stage.name] = task.key
        else:
            found[task.stage.name].failed[task.stage.name] = result.message
    return found


@contextmanager
def _interpreter(hash_seed: int) -> Iterator[None]:
    """Processes of plugins are forked from an interpreter that was started in the block, and hashes texts so."""
    own = surroundings._FIXED
    before = dict(own)
    own["PYTHONHASHSEED"] = str(hash_seed)  # a server of another environment is another process
    try:
        yield
    finally:
        own.clear()
        own.update(before)


def differences(one: Computed, other: Computed, stage: Stage) -> str | None:
    """In which files two artifacts of a stage differ, of samples in how many pictures, pixels and texts; None where
    they do not."""
    a, b = one.manifest(stage).files, other.manifest(stage).files
    names = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
    if not names:
        return None
    said = []
    if any(name.startswith(f"{SAMPLES}/") for name in names):
        said = _of_samples(one.samples(stage), other.samples(stage))
    beside = [n for n in names if not (n.startswith(f"{SAMPLES}/") or n == "samples.json")] if said else names
    if beside:
        more = f" and {len(beside) - _SHOWN} more" if len(beside) > _SHOWN else ""
        said.append(f"{'the files' if len(beside) > 1 else 'the file'} {', '.join(beside[:_SHOWN])}{more}")
    return f"{', '.join(said)} differ{'' if len(said) > 1 or len(beside) != 1 else 's'}"


def _of_samples(one: Sequence[Sample], other: Sequence[Sample]) -> list[str]:
    if len(one) != len(other):
        return [f"{len(one)} samples and {len(other)}"]
    pictures = pixels = every = worst = 0
    for a, b in zip(one, other, strict=True):
        before, after = np.asarray(a.image), np.asarray(b.image)
        every += before.size
        if before.shape != after.shape:
            pictures, pixels, worst = pictures + 1, pixels + before.size, 255
        elif (delta := np.abs(before.astype(np.int16) - after)).any():
            pictures, pixels = pictures + 1, pixels + int(np.count_nonzero(delta))
            worst = max(worst, int(delta.max()))
    said = []
    if pictures:
        said.append(f"{pictures} of {len(one)} pictures ({pixels} of {every} values, by up to {worst}/255)")
    for what, field_ in (("questions", "question"), ("answers", "answer"), ("ids", "id")):
        if changed := sum(getattr(a, field_) != getattr(b, field_) for a, b in zip(one, other, strict=True)):
            said.append(f"{changed} of {len(one)} {what}")
    return said


def _ignoring(
    draws: Iterable[Data], once: Computed, place: Path, limits: Limits, workers: int | None
) -> Iterator[Finding]:
    """Datasets whose training samples are the same whatever the seed."""
    store = Store(place / "seeds")
    for stage in draws:
        for further in range(1, _OTHER_SEEDS + 1):
            other = replace(stage, seed=stage.seed + further)
            drawn = compute_stages([other], store, limits, workers)
            if other.name in drawn.keys:
                if contents(once.samples(stage)) == contents(drawn.samples(other)):
                    yield _finding(
                        "ignores its seed",
                        stage,
                        f"the seeds {stage.seed} and {other.seed} give the same training samples: draw the splits by "
                        "the seed that `load` is given",
                    )
                break
        else:
            yield _finding("failed", other, drawn.failed[other.name])


def _overlapping(stages: Sequence[Data], once: Computed) -> Iterator[Finding]:
    """Datasets whose training and test samples, each drawn in a process of its own, have some in common."""
    for train, test in product(stages, stages):
        alike = replace(train, split="test", size=test.size, label=test.label) == test
        if train.split == "test" or not alike:
            continue
        if shared := shared_samples(once.store, once.keys[train.name], once.keys[test.name]):
            yield _finding("failed", test, f"{shared}: they must be disjoint")


def contents(samples: Iterable[Sample]) -> str:
    """What identifies samples but for their ids."""
    return digest(replace(sample, id="") for sample in samples)


def _asked(stage: Data) -> tuple[object, ...]:
    return stage.plugin, str(stage.dataset.asked), stage.seed


def _finding(kind: Literal["differs", "failed", "ignores its seed"], stage: Stage, problem: str) -> Finding:
    return Finding(kind, f"{stage.kind} {stage.label}", stage.plugin, problem.removeprefix(f"{stage.plugin}: "))
