"""Crafting state on disk: perturbations as 8-bit differences in one file a round, everything else in one JSON file.

A round reads the last round's file and writes a new one; `commit` makes it the current one by replacing the JSON file
in one step. A killed run therefore continues from its last finished round.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from arena.data.sample import Sample, digest
from arena.errors import ArenaError
from arena.files import write_atomically
from arena.lvlm.base import LVLM


@dataclass
class State:
    """What a finished round leaves behind: the run's key, rounds finished, triggers and diagnostics by sample,
    round logs."""

    key: str
    rounds: int = 0
    triggers: list[list[str]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: list[dict[str, Any]] = field(default_factory=list)


def run_key(samples: Sequence[Sample], surrogates: Sequence[LVLM], settings: str) -> str:
    """SHA-256 of what a run is about: samples, settings, and each surrogate's shapes and the first values of every
    weight."""
    total = hashlib.sha256(settings.encode() + digest(samples).encode())
    for lvlm in surrogates:
        total.update(f"{type(lvlm).__name__} {len(lvlm.tokenizer)}".encode())
        for name, weight in lvlm.model.state_dict().items():
            total.update(f"{name} {tuple(weight.shape)}".encode())
            total.update(weight.flatten()[:64].float().cpu().numpy().tobytes())
    return total.hexdigest()


class Workspace:
    """The folder of one run. Perturbations are int8 differences in 1/255, sample after sample, ``(C, H, W)`` each."""

    def __init__(self, folder: Path, samples: Sequence[Sample], key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.shapes = np.array([_shape(s) for s in samples], np.int64).reshape(-1, 3)
        self.offsets = np.concatenate([[0], self.shapes.prod(1).cumsum()])
        self.state = self._load(key)

    def _load(self, key: str) -> State:
        path = self.folder / "state.json"
        if not path.exists():
            return State(key)
        try:
            state = State(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ArenaError(f"{path} is damaged ({error}): remove the folder and start again") from error
        if state.key != key:
            raise ArenaError(
                f"{self.folder} holds another run (other samples, surrogates, settings, budget or seed): "
                "give an empty folder"
            )
        current = self._file(state.rounds)
        if state.rounds and (not current.exists() or current.stat().st_size != self.offsets[-1]):
            raise ArenaError(f"{current} is missing or cut off: remove the folder and start again")
        return state

    def _file(self, number: int) -> Path:
        return self.folder / f"perturbations-{number}.int8"

    def read(self, indices: Sequence[int]) -> list[Tensor]:
        """Current perturbations of some samples, int16 ``(C, H, W)``; zero before the first round."""
        if self.state.rounds == 0:
            return [torch.zeros(tuple(self.shapes[i]), dtype=torch.int16) for i in indices]
        with self._file(self.state.rounds).open("rb") as file:
            return [self._one(file, i) for i in indices]

    def _one(self, file: BinaryIO, index: int) -> Tensor:
        file.seek(int(self.offsets[index]))
        count = int(self.offsets[index + 1] - self.offsets[index])
        values = np.frombuffer(file.read(count), np.int8).reshape(self.shapes[index])
        return torch.from_numpy(values.astype(np.int16))

    def writer(self) -> BinaryIO:
        """The next round's file; append perturbations to it in the samples' order."""
        return self._file(self.state.rounds + 1).open("wb")

    def commit(self, state: State) -> None:
        """Make a finished round the current one."""
        path, last = self.folder / "state.json", self.state.rounds
        write_atomically(path, json.dumps(asdict(state)).encode())
        self.state = state
        if last:
            self._file(last).unlink(missing_ok=True)


def append(file: BinaryIO, perturbations: Sequence[Tensor]) -> None:
    """Write perturbations, int16 within -127 to 127, as bytes."""
    for delta in perturbations:
        file.write(delta.to(torch.int8).numpy().tobytes())


def close(file: BinaryIO) -> None:
    """Flush to the disk itself: the state that refers to the file is written after it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _shape(sample: Sample) -> tuple[int, int, int]:
    width, height = sample.image.size
    return (1 if sample.image.mode in ("L", "LA") else 3), height, width
