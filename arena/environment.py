"""Where a result was computed: packages, code, machine; and what computing it cost."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import threading
import time
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

_PACKAGES = (
    *("mmguard-arena", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pillow"),
    *("scikit-image", "scikit-learn", "kornia", "diffusers", "bitsandbytes"),
)
_CODE = ("arena", "mmguard", "defenses", "attacks", "pyproject.toml")


def quiet_libraries() -> None:
    """Keep libraries' own bars and their notes to each other from beside ours. For before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses an optional kernel whenever peft imports it


class Meter:
    """Wall-clock seconds and the process's peak resident memory (MB) of a block, sampled ten times a second."""

    def __enter__(self) -> Meter:
        self._process = psutil.Process()
        self._peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = round(time.perf_counter() - self._start, 4)
        self._done.set()
        self._thread.join()
        self.peak_memory_mb = round(max(self._peak, self._process.memory_info().rss) / 2**20, 1)

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            self._peak = max(self._peak, self._process.memory_info().rss)


@cache
def packages() -> dict[str, str]:
    """Versions of the installed packages that a result can depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout this code is in, and whether the code differs from it; None for an installed package."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None, None
        present = [name for name in _CODE if (root / name).exists()]
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *present))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def machine() -> str:
    """The processor and its number of cores, e.g. ``Example CPU 3000 (6/85/7), 2 cores``; no host name. The numbers are
    family, model and stepping: clouds give processors of several generations, which round differently, one name."""
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        first = lines[: lines.index("")] if "" in lines else lines
        said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
        if "model name" in said:
            numbers = [said[name] for name in ("cpu family", "model", "stepping") if name in said]
            return f"{said['model name']} ({'/'.join(numbers)})" if numbers else said["model name"]
    return platform.processor() or platform.machine()


def allowed_threads() -> int:
    """Threads that one process alone may compute with: what ``OMP_NUM_THREADS`` says, else one a core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else os.cpu_count() or 1


def stage_environment(threads: int) -> dict[str, Any]:
    """What a record says of the process a stage ran in. Looks at torch only where a stage has loaded it."""
    commit, dirty = code_state()
    return {
        "packages": packages(),
        "git_commit": commit,
        "git_dirty": dirty,
        **device_environment(),
        "threads": threads,
        "machine": machine(),
    }


def device_environment() -> dict[str, Any]:
    """The part of it that only the process itself can say: the first GPU that it has put anything on, else the CPU."""
    torch = sys.modules.get("torch")
    cuda = torch.cuda if torch is not None and torch.cuda.is_initialized() else None
    used = [i for i in range(cuda.device_count()) if cuda.max_memory_allocated(i)] if cuda is not None else []
    if cuda is None or not used:
        return {"device": "cpu", "nondeterminism": []}
    doubt = "CUDA kernels: sums of floats may be taken in another order"
    return {"device": cuda.get_device_name(used[0]), "nondeterminism": [doubt]}
