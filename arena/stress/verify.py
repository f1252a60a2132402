"""`arena protect --verify`: small fine-tunings on an owner's release, as it is and after what happens to pictures on
their way to a fine-tuner, by the machinery of stress tests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena.engine.execute import run as run_suite
from arena.errors import ArenaError, UsageError
from arena.owner.report import Report, read_report
from arena.owner.verified import Left, Share, Verified
from arena.plugins.identity import CONTROL
from arena.plugins.registry import Registry
from arena.stress.folder import export
from arena.stress.run import board_of, failures_of
from arena.stress.settings import Settings
from arena.stress.target import entered, find_target
from arena.suites.schema import Suite
from arena.suites.validation import validate

if TYPE_CHECKING:
    from rich.console import Console

AFTER: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("JPEG 90", "jpeg", {"quality": 90}),
    ("JPEG 75", "jpeg", {"quality": 75}),
    (
        "a platform's resize to 1080 pixels and JPEG 80",
        "resize+jpeg",
        {"resize": {"longest": 1080}, "jpeg": {"quality": 80}},
    ),
    ("a screenshot at 70 % of the size", "resize", {"scale": 0.7, "filter": "bilinear"}),
    ("a crop to 80 % of each side", "crop-pad", {"side": 0.8}),
)
"""What is done to a release before somebody trains on it: in words, the attack, its settings."""

SEEDS = 5
FEWEST = 40
"""Samples below which nothing can be told: `HELD` are held out, and the others are too few to learn from."""
HELD, LEAST_HELD, MOST_HELD = 4, 20, 100
"""One of so many samples is held out, at least and at most so many."""
MOST_TRAINED = 300

_SMALL: Mapping[str, Any] = {"epochs": 8, "checkpoints": "best"}
_LARGE: Mapping[str, Any] = {"epochs": 3, "checkpoints": "best", "learning_rate": 2e-4, "batch_size": 4}
"""Settings of the recipe for models that come with the arena, and for those of the hub."""

PLACE, RECORDS = ".verify", "verify.jsonl"
"""In the folder of a release: what is removed at the end, and the records, which are kept."""


@dataclass(frozen=True)
class Plan:
    """How much a verification does: fine-tunings of so many epochs on so many samples, each scored on so many."""

    trainings: int
    epochs: int
    trained: int
    held_out: int

    def seconds(self, forward: float, gradient: float) -> float:
        """What it takes about, from the seconds of one sample's passes: answers take several forward passes, and each
        fine-tuning starts processes."""
        return self.trainings * (self.epochs * self.trained * gradient + self.held_out * 4 * forward + 3)


def planned(samples: int, model: str, registry: Registry) -> Plan:
    """What is done with so many samples. Raises `UsageError` where they are too few."""
    if samples < FEWEST:
        raise UsageError(
            f"--verify needs at least {FEWEST} samples, and there are {samples}: {LEAST_HELD} are held out to score "
            f"on, and from the other {max(0, samples - LEAST_HELD)} a model learns too little for a difference to be "
            "seen. Leave --verify out, or add samples"
        )
    held = min(MOST_HELD, max(LEAST_HELD, samples // HELD))
    trainings = SEEDS * 2 * (1 + len(AFTER))
    return Plan(trainings, int(_recipe(model, registry)["epochs"]), min(MOST_TRAINED, samples - held), held)


def verify(folder: Path, console: Console, workers: int | None = None) -> Verified:
    """Fine-tune the first surrogate on the release in `folder`, which `arena protect` made, and on its originals, and
    score on originals that were held out.

    A run that was interrupted goes on. Raises `UsageError` where there are too few samples or no surrogate.
    """
    from arena.store.local import Store

    started, registry = time.monotonic(), Registry()
    report = read_report(folder)
    model = _model(report)
    plan = planned(len(report.samples), model["id"], registry)
    place = folder / PLACE
    settings = Settings(target=str(folder.absolute()), test=plan.held_out)
    target = replace(find_target(settings, registry), name="release")  # a folder may be called as a control is
    assert target.protected is not None
    if target.breaches:
        raise ArenaError(f"{folder} is not what was released: {target.breaches[0]}")
    made, entry, _ = entered(_suite(model, registry), target, place / "originals")
    (data,) = made.datasets
    data = data.model_copy(update={"train": min(data.train, plan.trained)})
    made = made.model_copy(update={"datasets": (data,)})
    export(target.protected, place / "originals")
    validate(made, registry, apart=True)
    ran = run_suite(made, Store(place / "store"), registry, "processes", workers, folder / RECORDS, console=console)
    board = board_of(ran.records, [cell.asked for cell in ran.plan.cells])
    rows = [] if board is None else [r for r in board.cells.to_dict("records") if r["defense"] == entry.label]
    by_attack = {str(row["attack"]): {str(k): v for k, v in row.items()} for row in rows}
    found = Verified(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model["id"],
        trained=data.train,
        held_out=data.test,
        seeds=SEEDS,
        before=_number(by_attack.get(CONTROL, {}).get("zero_shot")),
        accuracy=_number(by_attack.get(CONTROL, {}).get("clean")),
        gain=_share(by_attack.get(CONTROL), "gain"),
        left=[_left(name, by_attack.get(name or CONTROL)) for name in ("", *(name for name, _, _ in AFTER))],
        failures=list(failures_of(ran)),
        seconds=time.monotonic() - started,
    )
    shutil.rmtree(place, ignore_errors=True)
    return found


def _model(report: Report) -> dict[str, Any]:
    if not report.request.surrogates:
        raise UsageError(
            "--verify fine-tunes the surrogate, and this release was made without one: name one with --surrogate"
        )
    first = report.request.surrogates[0]
    return {"id": first["id"], "config": {**first["config"], **first["runtime"]}}


def _recipe(model: str, registry: Registry) -> Mapping[str, Any]:
    from arena.plugins.base import ModelSource

    source = registry.get("model", model).load()
    return _LARGE if issubclass(source, ModelSource) and source.billions is not None else _SMALL


def _suite(model: Mapping[str, Any], registry: Registry) -> Suite:
    """The release beside its originals, without attack and after each; the dataset is put in later."""
    attacks = [{"id": id, "config": config, "label": name} for name, id, config in AFTER]
    return Suite.model_validate(
        {
            "id": "verify",
            "title": "What is left of a release",
            "models": [model],
            "datasets": [{"id": "imagefolder", "train": 1, "test": 1}],
            "defenses": [CONTROL],
            "attacks": [CONTROL, *attacks],
            "recipes": [{"id": "lora", "config": dict(_recipe(model["id"], registry))}],
            "seeds": list(range(SEEDS)),
        }
    )


def _left(name: str, row: Mapping[str, Any] | None) -> Left:
    gain = _number(row.get("gain")) if row else None
    cost = _share(row, "attack_cost") if name else Share()
    if cost.value is not None and gain is not None and gain > 0:
        low, high = (None if end is None else end / gain for end in (cost.low, cost.high))
        cost = Share(value=cost.value / gain, low=low, high=high)
    return Left(after=name, denied=_share(row, "protection"), own_cost=cost)


def _share(row: Mapping[str, Any] | None, name: str) -> Share:
    """A score of a board's row."""
    if row is None:
        return Share(undefined="it was not computed")
    reason, value = row.get(f"{name}_undefined"), _number(row.get(name))
    if (isinstance(reason, str) and reason) or value is None:
        return Share(undefined=_IN_WORDS.get(str(reason), str(reason or "it was not computed")))
    return Share(value=value, low=_number(row.get(f"{name}_low")), high=_number(row.get(f"{name}_high")))


_IN_WORDS = {
    "no gain": "fine-tuning on your originals did not measurably help this model, so there is nothing to deny. More "
    "samples, or a model that knows less of your data, may show it",
    "failed": "the fine-tunings failed",
}


def _number(value: object) -> float | None:
    """A cell of a frame that is a number; None for what pandas has as NaN."""
    return float(value) if isinstance(value, float | int) and value == value else None
