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
    """The folder of one run. Perturbations are int8 differences in 1/255, one after the other, ``(C, H, W)`` each;
    `samples` are one of each."""

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

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        """Some of the current perturbations, int16 ``(C, H, W)``; zero before the first round."""
        if self.state.rounds == 0:
            return [torch.zeros(tuple(self.shapes[n]), dtype=torch.int16) for n in numbers]
        with self._file(self.state.rounds).open("rb") as file:
            return [self.one(file, n) for n in numbers]

    def one(self, file: BinaryIO, number: int) -> Tensor:
        """A perturbation of a file."""
        file.seek(int(self.offsets[number]))
        count = int(self.offsets[number + 1] - self.offsets[number])
        values = np.frombuffer(file.read(count), np.int8).reshape(self.shapes[number])
        return torch.from_numpy(values.astype(np.int16))

    def turn(self) -> Turn:
        """The next round's perturbations, as those before it until they are written."""
        return Turn(self, self._file(self.state.rounds + 1))

    def commit(self, state: State) -> None:
        """Make a finished round the current one."""
        path, last = self.folder / "state.json", self.state.rounds
        write_atomically(path, json.dumps(asdict(state)).encode())
        self.state = state
        if last:
            self._file(last).unlink(missing_ok=True)


class Turn:
    """The perturbations of a round that is being computed."""

    def __init__(self, workspace: Workspace, path: Path) -> None:
        self._workspace = workspace
        self._written: set[int] = set()
        self._file = path.open("w+b")

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        """As `Workspace.read`, with what the round has written already."""
        return [
            self._workspace.one(self._file, n) if n in self._written else self._workspace.read([n])[0] for n in numbers
        ]

    def write(self, numbers: Sequence[int], perturbations: Sequence[Tensor]) -> None:
        """Put perturbations, int16 within -127 to 127, into the file as bytes."""
        for number, delta in zip(numbers, perturbations, strict=True):
            self._file.seek(int(self._workspace.offsets[number]))
            self._file.write(delta.to(torch.int8).numpy().tobytes())
            self._written.add(number)

    def finish(self) -> None:
        """Flush to the disk itself: the state that refers to the file is written after it."""
        self._file.flush()
        os.fsync(self._file.fileno())


def _shape(sample: Sample) -> tuple[int, int, int]:
    width, height = sample.image.size
    return (1 if sample.image.mode in ("L", "LA") else 3), height, width
