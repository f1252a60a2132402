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

TESTS = Path(__file__).parent
TOYS = TESTS / "toys"

LONGEST = (
    "arena/kit/test_in_tree.py",
    "arena/engine/test_end_to_end.py",
    "arena/engine/test_audit.py",
    "arena/engine/test_isolation.py",
    "arena/lvlm/test_families.py",
    "leaderboards/test_tutorial.py",
    "golden/test_golden.py",
    "arena/cli/test_stress.py",
    "arena/kit/test_new.py",
    "arena/engine/test_launch.py",
    "arena/submissions/test_accept.py",
    "arena/engine/test_dask_scheduler.py",
    "arena/recipes/test_packing.py",
    "arena/lvlm/test_zoo.py",
    "defenses/test_defenses.py",
    "defenses/test_shared_pictures.py",
    "arena/store/test_disk.py",
    "attacks/test_adv_train.py",
    "attacks/test_training_attacks.py",
    "arena/stress/test_pytest_plugin.py",
    "arena/owner/test_protect_folder.py",
    "arena/stress/test_action.py",
)
"""Files that take minutes, of which several have few tests: they come first, the longest of them before the others, so
that no processor is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files as `LONGEST` says; all others, and the tests of each, stay as they are."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
