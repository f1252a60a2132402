"""What all tests share: a cache directory of their own, and the toys, plugins of a made-up third-party package."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads that wait for each other starve small models

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="arena-tests-hub-")  # one for all, since servers are started with it
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

TOYS = Path(__file__).parent / "toys"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ARENA_STORE", raising=False)


@pytest.fixture(autouse=True)
def own_registry() -> None:
    """What one test installs, another does not find."""
    from arena.plugins.registry import installed

    installed.cache_clear()


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toys are installed, here and in processes started from here; returns the log of the stages they compute."""
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(TOYS), str(TOYS.parent), os.environ.get("PYTHONPATH")]))
    )
    log = tmp_path / "stages.log"
    monkeypatch.setenv("TOY_LOG", str(log))
    from arena.engine.stages import KINDS
    from arena.plugins.registry import installed
    from arena.store.local import Store

    installed.cache_clear()  # tests before may have asked without the toys
    for kind in KINDS:
        monkeypatch.setattr(kind, "run", kind.run)
        monkeypatch.setattr(kind, "preload", kind.preload)
    monkeypatch.setattr(Store, "put", Store.put)
    import toys as module

    module.install()
    for objects in module.HANDED.values():
        objects.clear()
    return log
