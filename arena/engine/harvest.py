"""From a finished or failed cell's artifacts to its result record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from arena.engine.graph import Cell, Plan
from arena.engine.stages import Stage
from arena.engine.stages.base import SAMPLES, Artifact, Fields, cost
from arena.environment import stage_environment
from arena.plugins.identity import digest_of
from arena.plugins.source import engine_digest
from arena.records.schema import Outcome, Record
from arena.store.local import MissingArtifact, Store


def done_record(plan: Plan, cell: Cell, keys: Mapping[str, str]) -> Record:
    """The record of a cell whose stages are all in the store, under `keys` by name. Raises `MissingArtifact`."""
    found = {name: _artifact(plan.store, keys[name]) for name in {*cell.stages.values(), *cell.chain}}
    fields = _empty()
    for role, name in cell.stages.items():
        if role != "purified":
            plan.stages[name].add_to(fields, role, found[name])
    fields["cost"]["purify"] = cost([found[name] for name in reversed(cell.chain)])
    fields["lineage"]["purified"] = found[cell.stages["purified"]].manifest.digest
    environment = dict(fields["environment"])
    kept_apart = [str(artifact.manifest.environment.get("isolation", "none")) for artifact in found.values()]
    environment["isolation"] = next(kind for kind in ("none", "process", "landlock") if kind in kept_apart)
    fields["cost"]["machine"] = environment.pop("machine")
    fields["environment"] = environment
    for name in ("zero_shot", "outcome"):
        fields[name] = Outcome.pack(*fields[name]).model_dump()
    samples = digest_of(fields.pop("drawn"))
    return _record(plan, cell, {**fields, "status": "done"}, samples)


def failed_record(plan: Plan, cell: Cell, keys: Mapping[str, str], stage: Stage, error: str, trace: str) -> Record:
    """The record of a cell that could not be finished because `stage` failed."""
    environment = stage_environment(threads=1)
    fields = _empty()
    fields["cost"]["machine"] = environment.pop("machine")
    failure = {"stage": f"{stage.kind} {stage.label}", "error": error, "traceback": trace}
    try:
        samples = {
            split: _artifact(plan.store, keys[cell.stages[split]]).json("samples.json")["digest"]
            for split in ("train", "test")
        }
    except (KeyError, MissingArtifact):
        samples = None
    fields |= {"environment": environment, "status": "failed", "failure": failure}
    return _record(plan, cell, fields, None if samples is None else digest_of(samples))


def _empty() -> Fields:
    """The measured fields of a record of which nothing is known."""
    return {
        "failure": None,
        "zero_shot": None,
        "outcome": None,
        "peak_accuracy": None,
        "chosen_epoch": None,
        "epochs": [],
        "stealth": None,
        "meaning": None,
        "diagnostics": {},
        "cost": {"protect": None, "purify": None, "finetune": None, "machine": ""},
        "lineage": dict.fromkeys(("clean", "release", "purified", "checkpoint", "score")),
    }


def _record(plan: Plan, cell: Cell, measured: dict[str, Any], samples: str | None) -> Record:
    asked = cell.asked.model_dump()
    asked["dataset"]["samples"] = samples
    made = {"suite": {"id": plan.suite.id, "digest": plan.digest}, "engine_digest": engine_digest()}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Record.model_validate({**asked, **measured, **made, "cell": cell.key, "created": created})


def _artifact(store: Store, key: str) -> Artifact:
    """An artifact of which every digest was checked: what it says goes into a record."""
    path, manifest = store.require(key), store.manifest(key)
    if manifest is None:
        raise MissingArtifact(key)
    return Artifact(path, manifest)


def shared_samples(store: Store, train: str, test: str) -> str | None:
    """Which samples two artifacts of data share, by pictures and texts, whatever their ids; None where none is. Raises
    `MissingArtifact`."""
    found = [_contents(_artifact(store, key)) for key in (train, test)]
    shared = found[0].keys() & found[1].keys()
    if not shared:
        return None
    first = found[1][min(shared)]
    return f"{len(shared)} of its {len(found[1])} test samples are training samples, such as {first!r}"


def _contents(data: Artifact) -> dict[str, str]:
    """The samples of an artifact of data: ids by a digest of the rest."""
    lines = (data.path / SAMPLES / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    pictures = {row["id"]: data.manifest.files[f"{SAMPLES}/{row.pop('file_name')}"].sha256 for row in rows}
    return {digest_of({**row, "id": pictures[row["id"]]}): row["id"] for row in rows}


def packages_here() -> dict[str, str]:
    """The versions of packages that records made here would state."""
    return dict(stage_environment(threads=1)["packages"])
