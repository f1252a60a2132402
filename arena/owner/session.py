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
from arena.data import trained
from arena.data.copies import picture_digest
from arena.data.sample import Sample, digest
from arena.engine.apart import Apart, Bounds, StageFailed, number
from arena.engine.job import party_seed, write_json
from arena.engine.stages import Input, Release, Stealth
from arena.engine.stages.base import SAMPLES, Asking
from arena.engine.stages.release import DRAFTS, read_counts, read_diagnostics, read_refused
from arena.engine.stages.stealth import read_perplexities
from arena.environment import allowed_threads
from arena.errors import ArenaError
from arena.isolation.leftovers import remove
from arena.owner.coverage import coverage
from arena.owner.intake import Originals, Refusal, not_all
from arena.owner.phases import CRAFTING, MEASURING, WRITING, Phases
from arena.owner.publishing import Published, crafted_within, publish
from arena.owner.report import ReleasedSample, Report, Request, inserted_span, measure, write_report
from arena.owner.seen import Seen
from arena.plugins.spec import PluginSpec
from arena.release import read_drafts, write_release

SHOWN = 4
"""Samples pictured in the report."""


@dataclass(frozen=True)
class _Made:
    """What the defense made of the originals that it could take, checked against them and written; what it took, and
    how many tokens a text has under the first surrogate's tokenizer."""

    originals: Originals
    seen: Seen
    published: Published
    tokens: Callable[[str], int] | None
    diagnostics: dict[str, float]
    seconds: float
    peak_memory_mb: float
    environment: dict[str, Any]


class _NotTaken(Exception):
    """Some samples, by their numbers, cannot be taken by a surrogate, each with a reason and a remedy."""

    def __init__(self, samples: dict[int, tuple[str, str]]) -> None:
        super().__init__()
        self.samples = samples


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
    strict: bool = False

    def run(self) -> Report:
        self._crafting.mkdir(exist_ok=True)
        made = self._made()
        originals, released, tokens = made.originals, made.published.samples, made.tokens
        samples, encoding = originals.samples, self.request.encoding
        checked = self.tell.each(released, "checking the release", 0.6)
        for index, (original, sample) in enumerate(zip(samples, checked, strict=True)):
            check(original, sample, self.request.budget, tokens, index)
        self.tell.begin(MEASURING, "measuring what shows")
        scores, notes = self._stealth(samples, released)
        reached = coverage(samples, self.tell.each(released, "measuring what was reached", 0.8), originals.files)
        copies, kept = made.seen.copies(originals.files), self._kept()
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
            notes=[*originals.notes, *made.published.notes, *copies.notes(), *kept, *notes],
            samples=[
                ReleasedSample(
                    id=original.id,
                    source_file=file,
                    file=encoding.renamed(file),
                    trigger=inserted_span(original.question, sample.question),
                    clean=digest([original]),
                    released=digest([sample]),
                    clean_picture=look.digest,
                    released_picture=picture_digest(sample.image),
                    mode=sample.image.mode,
                    changes=list(changes),
                )
                for original, sample, file, changes, look in zip(
                    *(samples, released, originals.files, originals.changes, made.seen.looks), strict=True
                )
            ],
            refused=originals.refused,
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

    def _made(self) -> _Made:
        """What the defense makes of all originals, else of those that its surrogates can take."""
        try:
            return self._craft(self.originals, self.seen)
        except _NotTaken as error:
            refused = {
                index: Refusal(file=self.originals.files[index], reason=reason, remedy=remedy)
                for index, (reason, remedy) in error.samples.items()
            }
            originals = self.originals.without(refused)
            if self.strict:
                raise not_all(originals.refused) from None
            return self._craft(originals, Seen.of(originals.samples))

    def _craft(self, originals: Originals, seen: Seen) -> _Made:
        """What the defense makes, as a suite would have it made, so that both give the same release; written, and read
        back."""
        samples, request, data = originals.samples, self.request, self.work / "data"
        stage = Release(
            label=self.defense.id,
            size=len(samples),
            defense=self.defense,
            budget=crafted_within(request.budget, request.encoding),
            surrogates=self.surrogates if "surrogates" in self.needs else None,
            seed=request.seed if "seed" in self.needs else None,
            train=Input("", SAMPLES),
            auxiliary=None,
            encoding=request.encoding if request.encoding.lossy else None,
        )
        with self._apart() as apart:
            given, folder = apart.folder("given"), apart.folder("made")
            self.tell.begin(CRAFTING, "handing over the samples")
            write_release(self.tell.each(samples, "handing over the samples", 0, 0), given / "train")
            self.tell(0.0, "crafting")
            try:
                ended = apart.compute(stage, given, folder, self._crafting)
            except StageFailed:
                if refused := read_refused(folder, len(samples)):
                    raise _NotTaken(refused) from None
                raise
            near = self.defense.config.get("copies") != "near"  # a defense that knows of near copies shares by itself
            drafts = seen.one_each(samples, read_drafts(folder / DRAFTS, samples), near)
            texts = list(dict.fromkeys(s.question for part in (samples, drafts) for s in part))
            tokens = self._counted(apart, texts) if self.surrogates else None
            for index, (original, sample) in enumerate(zip(samples, drafts, strict=True)):
                check(original, sample, request.budget, tokens, index)
            self.tell.begin(WRITING, "writing and checking the release")
            if data.exists():
                shutil.rmtree(data)
            writing = self.tell.each(drafts, "writing the release", 0, 0.6)
            published = publish(originals, writing, data, request.encoding, request.budget)
            environment = apart.environment(ended)
            took = number(ended.get("seconds")), number(ended.get("peak_memory_mb"))
            return _Made(originals, seen, published, tokens, read_diagnostics(folder), *took, environment)

    def _counted(self, apart: Apart, texts: Sequence[str]) -> Callable[[str], int]:
        given, reply = apart.folder("question"), apart.folder("reply")
        write_json(given / "texts.json", texts)
        asking = Asking(self.surrogates[0])
        apart.compute(asking, given, reply)
        return read_counts(reply, texts, asking.model.id)

    def _stealth(
        self, samples: Sequence[Sample], released: Sequence[Sample]
    ) -> tuple[dict[str, float | None], list[str]]:
        from arena.score.stealth import stealth

        told = self.tell.each(released, "measuring what shows", 0, 0.8)
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

    def _kept(self) -> list[str]:
        """Put what the defense trained beside the release, where it left something; what there is to say of it."""
        made, place = self._crafting / trained.FOLDER / trained.FILE, self.work / trained.FOLDER
        if made.is_symlink() or made.parent.is_symlink() or not made.is_file():
            return []
        place.mkdir(exist_ok=True)
        shutil.copyfile(made, place / trained.FILE)
        return [
            f"what the defense trained is in the folder {trained.FOLDER}, and --reuse gives it to other pictures. Keep "
            "it to yourself: who has it can take it off again"
        ]

    def _log(self) -> list[dict[str, Any]]:
        """The rounds in the ``log.json`` that some defenses leave in their workspace."""
        path = self._crafting / "log.json"
        if path.is_symlink() or not path.is_file():
            return []
        content = json.loads(path.read_text(encoding="utf-8"))
        log = content.get("log") if isinstance(content, dict) else None
        return log if isinstance(log, list) and all(isinstance(entry, dict) for entry in log) else []
