"""A suite's dry run: the same plugins and combinations, on models and data so small that it takes minutes on a CPU.

Checkpoints of the hub become random ones of the same architecture, published data sets drawn ones in their schema
(`ModelSource.dry_run`, `Dataset.dry_run`), settings the small values that plugins declare, sizes and seeds those of the
suite's section `tiny`, and of the combinations only so many stay that everything is met. What comes out says that
everything runs, and nothing about any protection.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from arena.errors import UnresolvedRevision
from arena.plugins.base import ModelSource
from arena.plugins.registry import Kind, Registry
from arena.suites.parts import TARGET
from arena.suites.schema import Combination, Suite

ROWS = 40
"""Rows of a fixture's split beyond what a suite draws from it, since some have no picture."""

Uses = list[dict[str, Any]]


@dataclass(frozen=True)
class Dry:
    """A suite made tiny, and what a reader should know of what became of it, a line each."""

    suite: Suite
    notes: tuple[str, ...]


def default_results(suite_id: str) -> Path:
    """Where the records of a dry run go; never among those that say something."""
    return Path("build/tiny") / f"{suite_id}.jsonl"


def tiny(suite: Suite, registry: Registry, folder: Path) -> Dry:
    """The dry run of a validated suite. Checkpoints and data sets are written below `folder` unless they are there."""
    maker = _Maker(suite, registry, folder)
    content = maker.content()
    every = list(suite.combinations())
    kept = _cover(every) if suite.tiny.cover else every
    content["skip"] = [skip.model_dump(exclude_none=True) for skip in suite.skip] + _all_but(kept, every)
    made = Suite.model_validate(content)
    return Dry(made, (*maker.notes(), *_left_out(kept, every)))


class _Maker:
    def __init__(self, suite: Suite, registry: Registry, folder: Path) -> None:
        self.suite, self.registry, self.folder = suite, registry, folder
        self.stand_ins: dict[str, str] = {}
        self.drawn: set[str] = set()
        self.kept: set[str] = set()

    def content(self) -> dict[str, Any]:
        """The suite's fields with everything in them small."""
        content = self.suite.model_dump(mode="json", exclude={"skip"})
        content["id"] = f"{self.suite.id[:90].rstrip('-')}-tiny"
        content["seeds"] = list(self.suite.tiny.seeds)
        content["meaning"] = {}
        for use in content["datasets"]:
            self._dataset(use)
        self._models(content["models"])
        self._models(content["surrogates"])
        for use in content["defenses"]:
            self._models(use["surrogates"] or [])
            self._lay_over("defense", use["id"], use["config"])
        for use in content["recipes"]:
            self._lay_over("recipe", use["id"], use["config"])
        for use in content["attacks"]:
            parts = use["id"].split("+")
            for part in parts:
                config = use["config"] if len(parts) == 1 else use["config"].setdefault(part, {})
                self._lay_over("attack", part, config)
        return content

    def notes(self) -> list[str]:
        """What stands for what."""
        small = self.suite.tiny
        seeds = ", ".join(map(str, small.seeds))
        lines = [f"{small.samples} training samples, {small.test} test items, seed {seeds}"]
        if self.stand_ins:
            listed = ", ".join(f"{id} by {family}" for id, family in sorted(self.stand_ins.items()))
            lines.append(f"models replaced by random checkpoints of their architecture: {listed}")
        if self.drawn:
            lines.append(f"data sets replaced by drawn ones of their schema: {', '.join(sorted(self.drawn))}")
        if self.suite.meaning.embedding is not None:
            lines.append("no sentence embedding: the similarity of rewritten questions is not measured")
        if self.kept:
            lines.append(f"kept as they are, since nothing stands for them: {', '.join(sorted(self.kept))}")
        return lines

    def _lay_over(self, kind: Kind, id: str, config: dict[str, Any]) -> None:
        cls = self.registry.get(kind, id).load().Config
        own = {name: value for name, value in self.suite.tiny.settings.items() if name in cls.model_fields}
        config |= {**cls.small(), **own}

    def _models(self, uses: Uses) -> None:
        for use in uses:
            if use["id"] == TARGET:
                continue
            source = self.registry.create("model", use["id"], use["config"])
            name = _digest(_identified(source))  # another checkpoint for every original, so that white-box stays so
            folder, seed = self.folder / f"{use['id']}-{name[:8]}", int(name[:8], 16)
            settings = _once(folder, partial(source.dry_run, seed=seed))
            if settings is None:
                self.kept.add(use["id"])
                continue
            self.stand_ins[use["id"]] = source.family
            use["config"] = {**use["config"], **settings}

    def _dataset(self, use: dict[str, Any]) -> None:
        whole = self.suite.tiny.samples
        train = max(1, round(whole * use["train"] / (use["train"] + use["auxiliary"])))
        use |= {"train": train, "auxiliary": whole - train if use["auxiliary"] else 0, "test": self.suite.tiny.test}
        source = self.registry.create("dataset", use["id"], use["config"])
        rows = ROWS + 2 * (whole + self.suite.tiny.test)
        settings = _once(self.folder / f"{use['id']}-{rows}", partial(source.dry_run, rows=rows))
        if settings is None:
            self.kept.add(use["id"])
            return
        self.drawn.add(use["id"])
        use["config"] = {**use["config"], **settings}


def _identified(source: ModelSource) -> str:
    try:
        return source.fingerprint()
    except UnresolvedRevision as error:
        return f"{error.id}@{error.revision}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _once(place: Path, write: Callable[[Path], Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The settings that `write` gives for a folder in `place`, which it fills unless that was done before; whole or not
    at all, whoever else writes it. None where it gives none."""
    place, files, said = place.absolute(), "files", "settings.json"
    if not (place / said).exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
        try:
            with _without_bars():
                settings = write(part / files)
            if settings is None:
                return None
            moved = {k: str(place / files) if v == str(part / files) else v for k, v in settings.items()}
            (part / said).write_text(json.dumps(moved), encoding="utf-8")
            try:
                part.rename(place)
            except OSError:
                if not (place / said).exists():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    found: dict[str, Any] = json.loads((place / said).read_text(encoding="utf-8"))
    return found


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the libraries' own progress bars, each a fraction of a second long."""
    import datasets
    from transformers.utils import logging

    shown = not datasets.are_progress_bars_disabled(), logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown[0]:
            datasets.enable_progress_bars()
        if shown[1]:
            logging.enable_progress_bar()


Column = tuple[str, str, str, str]
"""Labels of dataset, model, recipe and attack."""


def _column(found: Combination) -> Column:
    return found.dataset.label, found.model.label, found.recipe.label, found.attack.label


def _cover(every: Iterable[Combination]) -> list[Combination]:
    """Combinations in which each dataset, model, recipe, attack and defense that is in `every` appears.

    Greedy and in order: the next column is the first that has most labels not met yet. With it comes the column of its
    dataset, model and recipe without attack, which its scores are compared with, and all of both columns' defenses and
    budgets.
    """
    every = list(every)
    columns: dict[Column, set[tuple[str, str]]] = {}
    for found in every:
        labels = {(field, str(name)) for field, name in found.names.items() if field != "budgets"}
        columns.setdefault(_column(found), set()).update(labels)
    controls = {_column(found)[:3]: _column(found) for found in every if found.attack.id == "none"}
    missing = set[tuple[str, str]]().union(*columns.values())
    chosen: set[Column] = set()
    while missing:
        best = max(columns, key=lambda column: len(columns[column] & missing))
        for column in {best, controls.get(best[:3], best)}:
            chosen.add(column)
            missing -= columns[column]
    return [found for found in every if _column(found) in chosen]


def _all_but(kept: Iterable[Combination], every: Iterable[Combination]) -> list[dict[str, list[str]]]:
    """What to skip of `every` so that `kept` is left; both are whole columns."""
    columns = {_column(found) for found in kept}
    gone: dict[tuple[str, str, str], dict[str, None]] = {}
    for found in every:
        if (column := _column(found)) not in columns:
            gone.setdefault(column[:3], {})[column[3]] = None
    return [
        {"datasets": [dataset], "models": [model], "recipes": [recipe], "attacks": list(attacks)}
        for (dataset, model, recipe), attacks in gone.items()
    ]


def _left_out(kept: list[Combination], every: list[Combination]) -> list[str]:
    if len(kept) == len(every):
        return [f"all {len(every)} combinations are left"]
    places: dict[tuple[str, ...], None] = {}
    for found in kept:
        places[_column(found)[:3]] = None
    listed = "; ".join(" · ".join(place) for place in places)
    return [
        f"{len(kept)} of {len(every)} combinations are left, in which every dataset, model, recipe, attack and defense "
        f"is met: {listed}"
    ]
