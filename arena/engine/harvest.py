"""From a finished or failed cell's artifacts to its result record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arena.engine.graph import Cell, Plan, Stage
from arena.environment import stage_environment
from arena.records.schema import Outcome, Record
from arena.store.local import MissingArtifact, Store
from arena.store.manifest import Manifest, content_key


def done_record(plan: Plan, cell: Cell) -> Record:
    """The record of a cell whose stages are all in the store. Raises `MissingArtifact`."""
    store, stages = plan.store, cell.stages
    zero_shot, scored = (_json(store, stages[role], "outcome.json") for role in ("zero-shot", "scored"))
    manifest = {role: _manifest(store, key) for role, key in stages.items()}
    chain = _chain(plan, cell)
    environment = dict(manifest["fine-tuned"].environment)
    machine = environment.pop("machine")
    accuracies = [e["test_accuracy"] for e in scored["epochs"] if e["test_accuracy"] is not None]
    measured: dict[str, Any] = {
        "status": "done",
        "failure": None,
        "zero_shot": Outcome.pack(zero_shot["correct"], zero_shot.get("metrics")).model_dump(),
        "outcome": Outcome.pack(scored["correct"], scored.get("metrics")).model_dump(),
        "peak_accuracy": max(accuracies),
        "chosen_epoch": scored["chosen"],
        "epochs": scored["epochs"],
        "stealth": _json(store, stages["stealth"], "stealth.json"),
        "diagnostics": _json(store, stages["release"], "diagnostics.json"),
        "cost": {
            "protect": _cost([manifest["release"]]),
            "purify": _cost([_manifest(store, stage.key) for stage in chain]),
            "finetune": _cost([manifest["fine-tuned"]]),
            "machine": machine,
        },
        "lineage": {
            "clean": manifest["train"].digest,
            "release": manifest["release"].digest,
            "purified": manifest["purified"].digest,
            "checkpoint": manifest["fine-tuned"].digest,
            "score": manifest["scored"].digest,
        },
        "environment": environment,
    }
    return _record(plan, cell, measured)


def failed_record(plan: Plan, cell: Cell, stage: Stage, error: str, trace: str) -> Record:
    """The record of a cell that could not be finished because `stage` failed."""
    environment = stage_environment(threads=1, crowded=False)
    machine = environment.pop("machine")
    measured: dict[str, Any] = {
        "status": "failed",
        "failure": {"stage": f"{stage.kind} {stage.label}", "error": error, "traceback": trace},
        "zero_shot": None,
        "outcome": None,
        "peak_accuracy": None,
        "chosen_epoch": None,
        "epochs": [],
        "stealth": None,
        "diagnostics": {},
        "cost": {"protect": None, "purify": None, "finetune": None, "machine": machine},
        "lineage": dict.fromkeys(("clean", "release", "purified", "checkpoint", "score")),
        "environment": environment,
    }
    return _record(plan, cell, measured)


def _record(plan: Plan, cell: Cell, measured: dict[str, Any]) -> Record:
    facts = {**cell.facts, "dataset": {**cell.facts["dataset"], "fingerprint": _fingerprint(plan.store, cell)}}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Record.model_validate({**facts, **measured, "cell": cell.key, "created": created})


def _fingerprint(store: Store, cell: Cell) -> str:
    """Digest of the samples; of what they are made from where they could not be made."""
    try:
        samples = {split: _json(store, cell.stages[split], "samples.json")["digest"] for split in ("train", "test")}
    except MissingArtifact:
        samples = {split: cell.stages[split] for split in ("train", "test")}
    return content_key(samples)


def _chain(plan: Plan, cell: Cell) -> list[Stage]:
    """The stages between release and purified samples, with what was fitted for them."""
    chain = []
    key = cell.stages["purified"]
    while key != cell.stages["release"]:
        stage = plan.stages[key]
        inputs = stage.document["inputs"]
        chain += [stage, *([plan.stages[inputs["fitted"]]] if "fitted" in inputs else [])]
        key = inputs["samples"]
    return chain


def _cost(manifests: Sequence[Manifest]) -> dict[str, float] | None:
    if not manifests:
        return None
    seconds = sum(m.seconds for m in manifests)
    return {
        "seconds": round(seconds, 4),
        "seconds_per_sample": round(seconds / max(1, manifests[0].document["size"]), 6),
        "peak_memory_mb": max(m.peak_memory_mb for m in manifests),
    }


def _json(store: Store, key: str, name: str) -> Any:
    return json.loads((_path(store, key) / name).read_text(encoding="utf-8"))


def _path(store: Store, key: str) -> Path:
    path = store.get(key)
    if path is None:
        raise MissingArtifact(key)
    return path


def _manifest(store: Store, key: str) -> Manifest:
    _path(store, key)
    manifest = store.manifest(key)
    if manifest is None:
        raise MissingArtifact(key)
    return manifest
