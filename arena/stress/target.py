"""What is stressed, put into a suite as its entry: a defense with settings, or a folder with what it was made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arena.budget import Budget
from arena.controls import CONTROLS
from arena.errors import UsageError
from arena.paths import is_folder
from arena.plugins.registry import Registry, near_misses
from arena.stress.folder import Protected, dataset_settings, read_protected, sizes
from arena.stress.settings import Settings
from arena.suites.parts import DatasetUse, DefenseUse, Skip
from arena.suites.schema import Suite
from arena.text import shortened

RELEASED = "released"
"""The defense that a folder is."""


@dataclass(frozen=True)
class Target:
    """`name` is for files, `protected` is the folder that was read, None of a defense."""

    name: str
    settings: Settings
    protected: Protected | None = None

    @property
    def breaches(self) -> tuple[str, ...]:
        """What of a folder is beyond its budget."""
        return self.protected.breaches if self.protected else ()


def find_target(settings: Settings, registry: Registry) -> Target:
    """A defense by its id, else a folder, which is read. Raises `UsageError` where it is neither, or is asked for what
    only the other has."""
    id = settings.target
    known = [entry.id for entry in registry.entries("defense")]
    if id in known:
        if id in (*CONTROLS, RELEASED):
            raise UsageError(f"{id!r} is no protection of its own: name another defense, or a folder as ./{id}")
        given = [n for n in ("originals", "columns", "test") if getattr(settings, n) not in (None, {})]
        if given:
            raise UsageError(f"target {id!r} is a defense, and `{given[0]}` is about folders: leave it out")
        return Target(id, settings)
    if not is_folder(id):
        raise UsageError(
            f"there is no folder and no defense '{shortened(id, 400)}'{near_misses(id, known)}; `arena list defenses` "
            "shows what is installed"
        )
    if settings.config:
        raise UsageError(f"target {shortened(id, 400)!r} is a folder, and settings are for defenses: leave them out")
    return Target(_slug(Path(id)), settings, read_protected(settings))


def entered(suite: Suite, target: Target, folder: Path) -> tuple[Suite, DefenseUse, tuple[str, ...]]:
    """The suite with the target as its only entry beside the controls, the entry, and what is to be said of it. Of a
    folder the data are its originals; where these have to be written as a folder of pictures, it is in `folder`.

    Raises `UsageError` where there are too few originals.
    """
    settings, found, notes = target.settings, target.protected, tuple[str, ...]()
    changed: dict[str, Any] = {}
    if found is None:
        use = DefenseUse.model_validate({"id": settings.target, "config": settings.config})
        budget: Budget | None = settings.budget
    else:
        config = {"folder": str(found.folder.absolute()), "columns": found.columns}
        use = DefenseUse.model_validate({"id": RELEASED, "config": config, "label": target.name})
        budget = found.budget
        train, auxiliary, test = sizes(found, settings.test, max(map(suite.share, suite.attacks)))
        data = DatasetUse(
            id="imagefolder",
            config=dataset_settings(found, folder),
            label=target.name,
            train=train,
            auxiliary=auxiliary,
            test=test,
        )
        changed["datasets"] = (data,)
        said = f"{train} released samples train, {test} originals are held out to score on"
        notes = (said + (f", {auxiliary} are the attackers' own clean data" if auxiliary else ""),)
    controls = [defense for defense in suite.defenses if defense.id in CONTROLS]
    if budget is not None:
        changed["budgets"] = (budget,)
        controls = [control.model_copy(update={"budgets": None}) for control in controls]
    changed["defenses"] = (*controls, use)
    made = suite.model_copy(update=changed)
    return made.model_copy(update={"skip": _skips(made)}), use, notes


def _skips(suite: Suite) -> tuple[Skip, ...]:
    """What the suite leaves out, of what it still has."""
    kept = []
    for skip in suite.skip:
        lists = skip.model_dump(exclude_none=True)
        for field in ("defenses", "datasets"):
            if field in lists:
                labels = {use.label for use in getattr(suite, field)}
                lists[field] = tuple(name for name in lists[field] if name in labels)
        if all(lists.values()):
            kept.append(Skip(**lists))
    return tuple(kept)


def _slug(path: Path) -> str:
    """A folder's name as part of a file's name and as a label."""
    return re.sub(r"[^a-z0-9]+", "-", path.absolute().name.lower()).strip("-")[:60] or "folder"
