"""Where a plugin is tried: its stages run as in a suite, in processes of their own behind the firewall, on samples of
the kit's choice, and what they made is judged by the harness."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from arena.budget import Budget, check
from arena.controls import bounds
from arena.data.colours import colours, recoloured
from arena.data.sample import Sample, digest
from arena.engine.apart import Apart, Bounds, StageFailed, number
from arena.engine.describe import Plugins
from arena.engine.job import NOTES, NOTES_FILE, Grants, write_json
from arena.engine.stages import Data, FineTune, Fit, Input, Purify, Release, Stage, TrainingPart
from arena.engine.stages.base import SAMPLES, Asking, read_made
from arena.engine.stages.data import check_splits
from arena.engine.stages.fine_tune import HISTORY, check_history
from arena.engine.stages.purify import check_purified, noted
from arena.engine.stages.release import DRAFTS, read_counts
from arena.errors import ArenaError, BudgetError, UsageError
from arena.isolation.leftovers import remove
from arena.kit import material
from arena.kit.models import Models
from arena.kit.observed import FACTS, READING, SEEN, VERDICT, Distinguished, Facts, Observed, Reading
from arena.kit.source import Source
from arena.plugins.card import Card
from arena.plugins.registry import Entry, Registry
from arena.plugins.spec import PluginSpec
from arena.release import read_drafts, read_release, write_release

OUTPUT = 10**9
"""Bytes that a stage may write or print."""
AUXILIARY = 6
SIZES = {"train": 8, "auxiliary": 4, "test": 5}
"""Samples that a dataset is asked for."""


class Failed(Exception):
    """A check found something: what, and the line to look at. `ended` where the plugin had to be ended, `refused` where
    it said itself, by an `ArenaError`, that it does not take what it was given."""

    def __init__(self, what: str, where: str, ended: bool = False, refused: bool = False) -> None:
        super().__init__(what)
        self.what, self.where, self.ended, self.refused = what, where, ended, refused


class Skipped(Exception):
    """A check had to be left out; the text says why."""


class Unavailable(Skipped):
    """What the plugin loads is not here, so that nothing can be tried."""


@dataclass(frozen=True)
class How:
    """In what a run differs from the plain one."""

    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    globals_seed: int | None = None
    threads: int = 1
    afresh: bool = False
    family: str = ""


@dataclass(frozen=True)
class Made:
    """What a run made: the digest of all of it, samples where it makes such, what is wrong with them by the budget,
    what was seen while it ran, and what it took."""

    contents: str
    samples: Sequence[Sample]
    over: str | None
    seen: Mapping[str, Any]
    seconds: float
    peak_memory_mb: float
    reading: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """One plugin with its settings, and a folder to try it in. `seconds` is what one stage may take."""

    def __init__(
        self, registry: Registry, entry: Entry, config: Mapping[str, Any], folder: Path, models: Models, seconds: float
    ) -> None:
        self.registry, self.entry, self.folder, self.models = registry, entry, folder, models
        self.kind = entry.kind
        self.bounds = Bounds(seconds, None, OUTPUT)
        self.source = Source(entry)
        folder.mkdir(parents=True, exist_ok=True)
        self._given = dict(config)
        self._stand_in: Mapping[str, Any] = {}
        self._runs: dict[How, Made | Failed] = {}

    # What the plugin is

    @cached_property
    def card(self) -> Card:
        """What the plugin says of itself, with the settings that it is tried with."""
        return self._described[0]

    @property
    def spec(self) -> PluginSpec:
        """The plugin as it runs: small settings where it says some."""
        return self._described[1]

    @cached_property
    def _described(self) -> tuple[Card, PluginSpec]:
        config = {**self.facts["small"], **self._stand_in, **self._given}
        return Plugins(self.registry, unresolved=True, apart=True).plugin(self.kind, self.entry.id, config)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What its class says, with the settings as they were given. Raises `Failed`."""
        self._stand_in = self.models.stand_in(self.entry, self._given)
        settings = {**self._stand_in, **self._given}
        card, spec = Plugins(self.registry, unresolved=True, apart=True).plugin(self.kind, self.entry.id, settings)
        if card.unresolved is not None:
            raise Unavailable(f"nothing stands for what it loads: {card.unresolved[0]}")
        with self._apart(How()) as apart:
            _, made = self._computed(apart, Facts(about=spec), lambda given: None)
            found: dict[str, Any] = read_made(made / FACTS, FACTS)
            return found

    @property
    def uses_model(self) -> bool:
        """Whether what it does is done with a model."""
        return bool({"surrogates", "model"} & self.card.needs) or self.card.trains or self.kind in ("recipe", "model")

    # Runs

    def plain(self, how: How | None = None) -> Made:
        """A run on plain samples, once for each `how`. Raises `Failed`, again where it failed before."""
        how = how or How()
        if how not in self._runs:
            try:
                self._runs[how] = self.make(material.plain(12), how)
            except Failed as failed:
                self._runs[how] = failed
        found = self._runs[how]
        if isinstance(found, Failed):
            raise found
        return found

    def make(self, samples: Sequence[Sample], how: How | None = None) -> Made:
        """Have the plugin do its work on samples. Raises `Failed` where it fails, or makes what cannot be used."""
        how = how or How()
        try:
            with self._apart(how) as apart:
                return {
                    "defense": self._release,
                    "attack": self._attack,
                    "recipe": self._recipe,
                    "dataset": self._data,
                    "model": self._model,
                }[self.kind](apart, samples, how)
        except StageFailed as error:
            ended = "and was ended" in str(error)
            more = ". It has as long as --seconds says" if "time limit" in str(error) else ""
            where, refused = self.source.in_trace(error.trace), self.source.refuses(error.trace)
            raise Failed(self._said(error) + more, where, ended, refused) from error
        except ArenaError as error:  # of the harness, about what was made
            raise Failed(self._said(error), self.source.work) from error

    def distinguished(self, samples: Sequence[Sample], how: How) -> str | None:
        """What the defense says of a release that it made of samples. Raises `Failed`."""
        made = self.make(samples, how)
        budget = bounds(self.entry.id, how.budget)
        stage = Distinguished(defense=self.spec, budget=budget, surrogates=self._surrogates(how), seed=self._seed(how))

        def hand_over(given: Path) -> None:
            write_release(samples, given / "train")
            write_release(made.samples, given / "released")

        try:
            with self._apart(how) as apart:
                _, left = self._computed(apart, stage, hand_over)
                verdict = read_made(left / VERDICT, VERDICT)
        except StageFailed as error:
            raise Failed(self._said(error), self.source.in_trace(error.trace)) from error
        return None if verdict is None else str(verdict)

    def reads(self, samples: Sequence[Sample], family: str) -> bool:
        """Whether the model that stands for a family can read samples at all."""
        try:
            with self._apart(How()) as apart:
                stage = Reading(model=self.models.spec(family))
                self._computed(apart, stage, lambda given: write_release(samples, given / "train"))
        except StageFailed:
            return False
        return True

    # Stages by kind

    def _release(self, apart: Apart, samples: Sequence[Sample], how: How) -> Made:
        surrogates, budget = self._surrogates(how), bounds(self.entry.id, how.budget)
        stage = Release(
            label="",
            size=len(samples),
            defense=self.spec,
            budget=budget,
            surrogates=surrogates,
            seed=self._seed(how),
            train=Input("", SAMPLES),
            auxiliary=Input("", SAMPLES) if "auxiliary" in self.card.needs else None,
        )

        def hand_over(given: Path) -> None:
            write_release(samples, given / "train")
            self._auxiliary(given / "auxiliary")

        ended, made = self._watched(apart, stage, hand_over, how)
        released = read_drafts(made / DRAFTS, samples)
        tokens = self._counted(apart, surrogates[0], samples, released) if surrogates else None
        over = None
        for index, (original, sample) in enumerate(zip(samples, released, strict=True)):
            try:
                check(original, sample, budget, tokens, index)
            except BudgetError as error:
                over = over or str(error)
        return self._made(made, ended, digest(released), released, over)

    def _attack(self, apart: Apart, samples: Sequence[Sample], how: How) -> Made:
        card, fitted, seen = self.card, None, list[dict[str, Any]]()
        model = self.models.spec(how.family) if "model" in card.needs else None
        own = Input("", SAMPLES) if "auxiliary" in card.needs else None
        originals = Input("", SAMPLES) if "originals" in card.needs else None
        grants = Grants(self._seed(how), model, AUXILIARY if own or originals else None)
        if card.fits:
            fit = Fit(label="", size=AUXILIARY, attack=self.spec, grants=grants, auxiliary=own)
            _, fitted = self._watched(apart, fit, lambda given: self._auxiliary(given / "auxiliary"), how)
            seen.append(_seen(fitted))
        parts: list[str] = []
        ended: dict[str, Any] = {}
        left, made, notes = list(samples), None, None
        if card.purifies or not card.trains:
            purify = Purify(
                label="",
                size=len(samples),
                attack=self.spec,
                grants=grants,
                samples=Input("", SAMPLES),
                auxiliary=own,
                fitted=Input("") if fitted else None,
                originals=originals,
                notes=card.trains,
            )
            hand_over = self._handing(samples, fitted, "")
            ended, made = self._watched(apart, purify, hand_over, how)
            left = read_release(made / SAMPLES)
            check_purified(left)
            seen.append(_seen(made))
            notes = noted(made / NOTES_FILE) if card.trains else None
            parts.append(digest(left))
        if card.trains:
            links = [Input("") if given else None for given in (fitted, notes is not None)]
            part = TrainingPart(self.spec, grants, own, *links)
            hand_over = self._handing(left, fitted, "training.0.", notes)
            recipe = self.models.recipe("lora")
            ended, made = self._watched(apart, self._fine_tune(recipe, (part,), len(left), how), hand_over, how)
            parts.append(_trained(made))
            seen.append(_seen(made))
        assert made is not None
        return replace(self._made(made, ended, " ".join(parts), left), seen=_together(seen))

    def _recipe(self, apart: Apart, samples: Sequence[Sample], how: How) -> Made:
        stage = self._fine_tune(self.spec, (), len(samples), how)
        ended, made = self._watched(apart, stage, self._handing(samples, None, ""), how)
        return self._made(made, ended, _trained(made), samples)

    def _fine_tune(self, recipe: PluginSpec, training: tuple[TrainingPart, ...], size: int, how: How) -> FineTune:
        model = self.models.spec(how.family)
        link = Input("", SAMPLES)
        return FineTune(label="", size=size, model=model, recipe=recipe, training=training, seed=how.seed, samples=link)

    def _data(self, apart: Apart, samples: Sequence[Sample], how: How) -> Made:
        parts: dict[str, Sequence[Sample]] = {}
        took = [0.0, 0.0]
        seen: dict[str, Any] = {}
        split: Any
        for split, size in SIZES.items():
            stage = Data(label="", size=size, dataset=self.spec, **SIZES, seed=how.seed, split=split)
            ended, made = self._watched(apart, stage, lambda given: None, how)
            parts[split] = read_release(made / SAMPLES)
            if len(parts[split]) != size:
                raise ArenaError(f"it gave {len(parts[split])} {split} samples instead of {size}")
            took = [took[0] + number(ended.get("seconds")), max(took[1], number(ended.get("peak_memory_mb")))]
            seen = {**seen, **_seen(made)}
        check_splits(parts)
        every = [sample for part in parts.values() for sample in part]
        return Made(digest(every), every, None, seen, took[0], took[1])

    def _model(self, apart: Apart, samples: Sequence[Sample], how: How) -> Made:
        stage = Reading(model=self.spec)
        ended, made = self._watched(apart, stage, lambda given: write_release(samples, given / "train"), how)
        reading = {} if how.afresh and not (made / READING).exists() else read_made(made / READING, READING)
        found = self._made(made, ended, hashlib.sha256((made / READING).read_bytes()).hexdigest(), samples)
        return Made(**{**vars(found), "reading": reading})

    # Pieces of them

    @contextmanager
    def _apart(self, how: How) -> Iterator[Apart]:
        place = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder)).resolve()
        try:
            yield Apart(place, place / "store", self.bounds, threads=how.threads, registry=self.registry)
        finally:
            remove(place)

    def _watched(
        self, apart: Apart, stage: Stage, hand_over: Callable[[Path], None], how: How
    ) -> tuple[dict[str, Any], Path]:
        watched = Observed(inner=stage, own=self.source.own, globals_seed=how.globals_seed, afresh=how.afresh)
        return self._computed(apart, watched, hand_over)

    def _computed(self, apart: Apart, stage: Stage, hand_over: Callable[[Path], None]) -> tuple[dict[str, Any], Path]:
        """A stage done: what its process said of itself, and the folder that it filled."""
        step = len(list(apart.place.iterdir()))
        given, made = apart.folder(f"given-{step}"), apart.folder(f"made-{step}")
        hand_over(given)
        workspace = apart.folder(f"workspace-{step}")
        return apart.compute(stage, given, made, workspace), made

    def _made(
        self,
        made: Path,
        ended: Mapping[str, Any],
        contents: str,
        samples: Sequence[Sample],
        over: str | None = None,
    ) -> Made:
        seconds, memory = number(ended.get("seconds")), number(ended.get("peak_memory_mb"))
        return Made(contents, samples, over, _seen(made), seconds, memory)

    def _surrogates(self, how: How) -> tuple[PluginSpec, ...] | None:
        return (self.models.spec(how.family),) if "surrogates" in self.card.needs else None

    def _seed(self, how: How) -> int | None:
        return how.seed if "seed" in self.card.needs else None

    def _auxiliary(self, folder: Path) -> None:
        if "auxiliary" in self.card.needs:
            own = material.plain(AUXILIARY, seed=9)
            write_release([Sample(f"own-{s.id}", s.image, s.question, s.answer) for s in own], folder)

    def _handing(
        self, samples: Sequence[Sample], fitted: Path | None, prefix: str, notes: dict[str, Any] | None = None
    ) -> Callable[[Path], None]:
        def hand_over(given: Path) -> None:
            write_release(samples, given / "samples")
            self._auxiliary(given / f"{prefix}auxiliary")
            if "originals" in self.card.needs and not prefix:
                write_release([_otherwise(s) for s in samples[:AUXILIARY]], given / "originals")
            if fitted is not None:
                shutil.copytree(fitted, given / f"{prefix}fitted", ignore=shutil.ignore_patterns(SEEN))
            if notes is not None:
                (given / f"{prefix}{NOTES}").mkdir()
                write_json(given / f"{prefix}{NOTES}" / NOTES_FILE, notes)

        return hand_over

    def _counted(
        self, apart: Apart, model: PluginSpec, samples: Sequence[Sample], released: Sequence[Sample]
    ) -> Callable[[str], int] | None:
        if all(a.question == b.question for a, b in zip(samples, released, strict=True)):
            return None
        texts = list(dict.fromkeys(s.question for part in (samples, released) for s in part))
        given, reply = apart.folder("question"), apart.folder("reply")
        write_json(given / "texts.json", texts)
        apart.compute(Asking(model), given, reply)
        return read_counts(reply, texts, model.id)

    def _said(self, error: ArenaError) -> str:
        return str(error).removeprefix(f"{self.kind} {self.entry.id!r}: ")


def _trained(made: Path) -> str:
    """Digest of what a training left. Raises `ArenaError` where it is no history and weights, or diverged."""
    check_history(read_made(made / HISTORY, HISTORY), sorted(path.name for path in made.glob("epoch-*.safetensors")))
    total = hashlib.sha256()
    for path in sorted(made.iterdir()):
        if path.name == HISTORY or path.suffix == ".safetensors":
            total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _otherwise(sample: Sample) -> Sample:
    """A sample as it was before every colour of its picture was changed a little."""
    changed = recoloured(sample.image, colours(sample.image) ^ 5)
    return sample.with_content(Image.fromarray(changed), sample.question)


def _seen(made: Path) -> dict[str, Any]:
    """What was seen while a stage ran; its process wrote it, so that it may be anything."""
    try:
        found = json.loads((made / SEEN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _together(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was seen in several stages of one plugin: of what each has, lists one after the other and mappings in one;
    of all else the first that says anything."""
    found: dict[str, Any] = {}
    for seen in stages:
        for name, value in seen.items():
            before = found.get(name)
            if isinstance(value, list) and isinstance(before, list):
                found[name] = before + value
            elif isinstance(value, dict) and isinstance(before, dict):
                found[name] = before | value
            else:
                found[name] = before or value
    return found


def refuse_settings(error: UsageError, kind: str, id: str) -> UsageError:
    """The error of settings that are missing or wrong, with what to type."""
    return UsageError(f"{error}. Give them as in `arena check {kind}/{id} --config NAME=VALUE`")
