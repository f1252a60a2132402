"""One session of `arena protect`: craft, write, read back, check, measure, report; all in the run's work folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from arena.budget import check
from arena.data.copies import picture_digest
from arena.data.sample import Sample, digest
from arena.engine.apart import Apart, Bounds, StageFailed, number
from arena.engine.job import party_seed, write_json
from arena.engine.stages import Input, Release, Stealth
from arena.engine.stages.base import SAMPLES, Asking
from arena.engine.stages.release import DRAFTS, read_counts, read_diagnostics
from arena.engine.stages.stealth import read_perplexities
from arena.environment import allowed_threads
from arena.errors import ArenaError
from arena.isolation.leftovers import remove
from arena.owner.coverage import coverage
from arena.owner.originals import Originals, released_name
from arena.owner.phases import CRAFTING, MEASURING, WRITING, Phases
from arena.owner.report import ReleasedSample, Report, Request, inserted_span, measure, write_report
from arena.owner.seen import Seen
from arena.plugins.spec import PluginSpec
from arena.release import read_drafts, read_release, write_release

SHOWN = 4
"""Samples pictured in the report."""


@dataclass(frozen=True)
class _Made:
    """What the defense made, checked against the originals, and what it took."""

    released: list[Sample]
    diagnostics: dict[str, float]
    seconds: float
    peak_memory_mb: float
    environment: dict[str, Any]


@dataclass(frozen=True)
class Session:
    """One session of a run in its work folder. Defense and surrogates run in processes of their own, with copies of the
    samples, unless `isolated` is off."""

    request: Request
    originals: Originals
    defense: PluginSpec
    needs: frozenset[str]
    surrogates: tuple[PluginSpec, ...]
    work: Path
    tell: Phases
    resumed: bool
    seen: Seen
    warnings: tuple[str, ...] = ()
    isolated: bool = True

    def run(self) -> Report:
        samples, data = self.originals.samples, self.work / "data"
        self._crafting.mkdir(exist_ok=True)
        made, tokens = self._craft()
        self.tell.begin(WRITING, "writing and checking the release")
        if data.exists():
            shutil.rmtree(data)
        write_release(self.tell.each(made.released, "writing the release", 0, 0.6), data, self.originals.files)
        written = digest(made.released)
        released = read_release(data)
        if digest(released) != written:
            raise ArenaError(f"{data} does not read back as it was written: check the disk, then use --resume")
        checked = self.tell.each(released, "checking the release", 0.6)
        for index, (original, sample) in enumerate(zip(samples, checked, strict=True)):
            check(original, sample, self.request.budget, tokens, index)
        self.tell.begin(MEASURING, "measuring what shows")
        scores, notes = self._stealth(released)
        reached = coverage(samples, self.tell.each(released, "measuring what was reached", 0.8), self.originals.files)
        copies = self.seen.copies(self.originals.files)
        report = Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            request=self.request,
            resumed=self.resumed,
            warnings=[*self.warnings, *(reached.warnings() if reached else ())],
            coverage=reached,
            copies=copies,
            measured=measure(samples, released, self.request.budget, tokens),
            stealth=scores,
            diagnostics=made.diagnostics,
            log=self._log(),
            notes=[*copies.notes(), *notes],
            samples=[
                ReleasedSample(
                    id=original.id,
                    source_file=file,
                    file=released_name(file),
                    trigger=inserted_span(original.question, sample.question),
                    clean=digest([original]),
                    released=digest([sample]),
                    clean_picture=look.digest,
                    released_picture=picture_digest(sample.image),
                )
                for original, sample, file, look in zip(
                    samples, released, self.originals.files, self.seen.looks, strict=True
                )
            ],
            seconds=made.seconds,
            peak_memory_mb=made.peak_memory_mb,
            environment=made.environment,
        )
        rng = np.random.default_rng(party_seed("report", self.request.seed))
        shown = sorted(int(i) for i in rng.choice(len(samples), min(SHOWN, len(samples)), replace=False))
        write_report(report, samples, released, shown, self.work)
        return report

    @property
    def _crafting(self) -> Path:
        return self.work / "crafting"

    @contextmanager
    def _apart(self) -> Iterator[Apart]:
        """Processes for plugins, with a folder that is gone afterwards."""
        place = self.work / "stage"
        remove(place)
        place.mkdir(mode=0o700)
        try:
            yield Apart(place, self.work, Bounds(), self.tell, isolated=self.isolated, threads=allowed_threads())
        except StageFailed as error:
            told = ArenaError(f"{error}. --debug shows where; --resume goes on from what it saved")
            told.add_note(error.trace)
            raise told from error
        finally:
            remove(place)

    def _craft(self) -> tuple[_Made, Callable[[str], int] | None]:
        """What the defense makes, as a suite would have it made, so that both give the same release; and how many
        tokens a text has under the first surrogate's tokenizer."""
        samples, request = self.originals.samples, self.request
        stage = Release(
            label=self.defense.id,
            size=len(samples),
            defense=self.defense,
            budget=request.budget,
            surrogates=self.surrogates if "surrogates" in self.needs else None,
            seed=request.seed if "seed" in self.needs else None,
            train=Input("", SAMPLES),
            auxiliary=None,
        )
        with self._apart() as apart:
            given, folder = apart.folder("given"), apart.folder("made")
            self.tell.begin(CRAFTING, "handing over the samples")
            write_release(self.tell.each(samples, "handing over the samples", 0, 0), given / "train")
            ended = apart.compute(stage, given, folder, self._crafting)
            drafts = self.work / DRAFTS  # which are looked at until the end
            remove(drafts)
            (folder / DRAFTS).replace(drafts)
            near = self.defense.config.get("copies") != "near"  # a defense that knows of near copies shares by itself
            released = self.seen.one_each(samples, read_drafts(drafts, samples), near)
            texts = list(dict.fromkeys(s.question for part in (samples, released) for s in part))
            tokens = self._counted(apart, texts) if self.surrogates else None
            for index, (original, sample) in enumerate(zip(samples, released, strict=True)):
                check(original, sample, request.budget, tokens, index)
            environment = apart.environment(ended)
            took = number(ended.get("seconds")), number(ended.get("peak_memory_mb"))
            return _Made(released, read_diagnostics(folder), *took, environment), tokens

    def _counted(self, apart: Apart, texts: Sequence[str]) -> Callable[[str], int]:
        given, reply = apart.folder("question"), apart.folder("reply")
        write_json(given / "texts.json", texts)
        asking = Asking(self.surrogates[0])
        apart.compute(asking, given, reply)
        return read_counts(reply, texts, asking.model.id)

    def _stealth(self, released: Sequence[Sample]) -> tuple[dict[str, float | None], list[str]]:
        from arena.score.stealth import stealth

        samples, told = self.originals.samples, self.tell.each(released, "measuring what shows", 0, 0.8)
        if all(a.question == b.question for a, b in zip(samples, released, strict=True)):
            return stealth(samples, told), []
        if not self.surrogates:
            return stealth(samples, told), ["perplexity was not measured: it needs a surrogate model"]
        reader = Stealth(label="", size=len(samples), reader=self.surrogates[0], originals=Input(""), release=Input(""))
        try:
            with self._apart() as apart:
                given, reply = apart.folder("given"), apart.folder("made")
                write_json(given / "texts.json", [[s.question for s in part] for part in (samples, released)])
                apart.compute(reader, given, reply)
                perplexity = read_perplexities(reply, len(samples))
            return stealth(samples, told, perplexity), []
        except ArenaError as error:  # a question may be too short to have a perplexity
            said = str(error.__cause__ or error)
            return stealth(samples, told), [f"perplexity was not measured: {said}"]

    def _log(self) -> list[dict[str, Any]]:
        """The rounds in the ``log.json`` that some defenses leave in their workspace."""
        path = self._crafting / "log.json"
        if path.is_symlink() or not path.is_file():
            return []
        content = json.loads(path.read_text(encoding="utf-8"))
        log = content.get("log") if isinstance(content, dict) else None
        return log if isinstance(log, list) and all(isinstance(entry, dict) for entry in log) else []
