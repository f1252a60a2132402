"""One session of `arena protect`: craft, write, read back, check, measure, report; all in the run's work folder."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from arena.budget import check
from arena.data.sample import Sample, digest
from arena.engine.job import party_seed
from arena.environment import Meter, stage_environment
from arena.errors import ArenaError, describe_error
from arena.owner.interrupts import Interrupts, Progress
from arena.owner.originals import Originals, released_name
from arena.owner.report import ReleasedSample, Report, Request, inserted_span, measure, write_report
from arena.owner.surrogates import Surrogates
from arena.plugins.base import DefenderWorld, Defense
from arena.release import build_release, read_release, write_release

SHOWN = 4
"""Samples pictured in the report."""


@dataclass(frozen=True)
class Session:
    """One session of a run in its work folder."""

    request: Request
    originals: Originals
    defense: Defense
    models: Surrogates
    work: Path
    tell: Progress
    resumed: bool

    def run(self) -> Report:
        samples, data = self.originals.samples, self.work / "data"
        interrupts = Interrupts(self.tell)
        world = self._world(interrupts.tell)
        with interrupts, _seeded(self.request.seed), Meter() as meter:
            released = self._release(world, interrupts)
        self.tell(1.0, "writing and checking the release")
        if data.exists():
            shutil.rmtree(data)
        write_release(released, data, self.originals.files)
        written = digest(released)
        released = read_release(data)
        if digest(released) != written:
            raise ArenaError(f"{data} does not read back as it was written: check the disk, then use --resume")
        tokens = self.models.count_tokens if self.models else None
        for index, (original, sample) in enumerate(zip(samples, released, strict=True)):
            check(original, sample, self.request.budget, tokens, index)
        self.tell(1.0, "measuring what shows")
        scores, notes = self._stealth(released)
        report = Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            request=self.request,
            resumed=self.resumed,
            measured=measure(samples, released, self.request.budget, tokens),
            stealth=scores,
            diagnostics={name: float(value) for name, value in world.diagnostics.items()},
            log=self._log(),
            notes=notes,
            samples=[
                ReleasedSample(
                    id=original.id,
                    source_file=file,
                    file=released_name(file),
                    trigger=inserted_span(original.question, sample.question),
                    clean=digest([original]),
                    released=digest([sample]),
                )
                for original, sample, file in zip(samples, released, self.originals.files, strict=True)
            ],
            seconds=meter.seconds,
            peak_memory_mb=meter.peak_memory_mb,
            environment=stage_environment(_threads(), crowded=False),
        )
        rng = np.random.default_rng(party_seed("report", self.request.seed))
        shown = sorted(int(i) for i in rng.choice(len(samples), min(SHOWN, len(samples)), replace=False))
        write_report(report, samples, released, shown, self.work)
        return report

    @property
    def _crafting(self) -> Path:
        return self.work / "crafting"

    def _world(self, tell: Progress) -> DefenderWorld:
        """The defender's world as a suite would make it, so that both give the same release."""
        self._crafting.mkdir(exist_ok=True)
        needs = self.defense.needs
        return DefenderWorld(
            self.request.budget,
            seed=party_seed("defense", self.request.seed) if "seed" in needs else None,
            surrogates=self.models.load if "surrogates" in needs else None,
            workspace=self._crafting,
            progress=tell,
        )

    def _release(self, world: DefenderWorld, interrupts: Interrupts) -> list[Sample]:
        samples, tokens = self.originals.samples, self.models.count_tokens if self.models else None
        try:
            return build_release(samples, self.defense.protect(samples, world), self.request.budget, tokens)
        except ArenaError:
            raise
        except BaseException as error:  # plugins raise anything; leaving with exit code 0 would look like a release
            if interrupts.came:  # whatever the plugin made of it
                raise KeyboardInterrupt from error
            raise ArenaError(
                f"defense {self.request.defense['id']!r} failed: {describe_error(error)}. --debug shows where; "
                "--resume goes on from what it saved"
            ) from error

    def _stealth(self, released: Sequence[Sample]) -> tuple[dict[str, float | None], list[str]]:
        from arena.score.stealth import stealth

        samples = self.originals.samples
        if all(a.question == b.question for a, b in zip(samples, released, strict=True)):
            return stealth(samples, released), []
        if not self.models:
            return stealth(samples, released), ["perplexity was not measured: it needs a surrogate model"]
        lvlm = self.models.first()
        try:
            return stealth(samples, released, lvlm.perplexities), []
        except ArenaError as error:  # a question may be too short to have a perplexity
            return stealth(samples, released), [f"perplexity was not measured: {error}"]

    def _log(self) -> list[dict[str, Any]]:
        """The rounds in the ``log.json`` that some defenses leave in their workspace."""
        path = self._crafting / "log.json"
        if not path.is_file():
            return []
        content = json.loads(path.read_text(encoding="utf-8"))
        log = content.get("log") if isinstance(content, dict) else None
        return log if isinstance(log, list) and all(isinstance(entry, dict) for entry in log) else []


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Global generators at `seed`, since libraries that defenses use draw from them; afterwards as they were."""
    import torch

    value, python, numpy = party_seed("globals", seed), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            random.seed(value)
            np.random.seed(value)
            torch.manual_seed(value)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
