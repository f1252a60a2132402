"""A dask cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests" / "toys"


class Cluster:
    """A scheduler, and the workers that a test starts; all have `environment` beside this process's own."""

    def __init__(self, folder: Path, scheme: str = "tcp", **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.place = probe.getsockname()
        self.address = f"{scheme}://127.0.0.1:{self.place[1]}"
        self._folder, self._environment = folder, environment
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", {}, "--host", self.address)
        wait_for(lambda: listens(self.place), lambda: self.scheduler.poll() is not None)

    def work(
        self, toys: bool = True, resources: str = "", threads: int = 2, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a worker, by default one that has the toys and says nothing of its resources."""
        more = (*(("--preload", "toys") if toys else ()), *(("--resources", resources) if resources else ()))
        words = (self.address, "--nthreads", str(threads), "--no-nanny", *more)
        return self._start("worker", environment, *words, toys=toys)

    def _start(
        self, what: str, environment: dict[str, str], *options: str, toys: bool = True
    ) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(map(str, (ROOT, TOYS) if toys else (ROOT,)))
        own = {"PYTHONPATH": path, "DASK_TEMPORARY_DIRECTORY": str(self._folder)}
        with (self._folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", what, "--dashboard-address", "127.0.0.1:0", *options],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, **self._environment, **own, **environment},
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def listens(place: tuple[str, int]) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(place) == 0


def wait_for(what: Callable[[], bool], over: Callable[[], bool]) -> None:
    """Wait for something that may take long on a busy machine, unless that is over from which it would come."""
    deadline = time.monotonic() + 120
    while not what() and not over():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert what()
