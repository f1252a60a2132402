"""What computes a run's stages: so many at a time, wherever that is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from arena.engine.stages import Stage
from arena.engine.worker import Result, Task


class Pool(ABC):
    """Computes up to `slots` tasks at a time."""

    slots: int

    def has_room(self, stage: Stage) -> bool:
        """Whether a stage could start now, where a slot is free: by default any could."""
        return True

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Start a task."""

    @abstractmethod
    def finished(self) -> list[tuple[str, Result]]:
        """Keys and results of tasks that ended since the last call; waits up to half a second for one."""

    @abstractmethod
    def progress(self) -> dict[str, tuple[float, str]]:
        """What running plugins last reported, by the task's key: the share done and a note."""

    @abstractmethod
    def close(self) -> None:
        """Stop, ending what is running."""
