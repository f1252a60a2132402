"""``pytest --arena FILE`` in runs of their own, on toys: items, outcomes, and that it is computed once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from stress_toys import write_suite

ROOT = Path(__file__).parents[3]

FILE = """\
target: toy-shift
suite: bright.yaml
requirements:
  - protection>=0.5
  - retention[toy-keep]>=0.5
  - psnr>=99
  - ms-ssim>=0.5
"""


@pytest.fixture
def place(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_suite(tmp_path / "bright.yaml")
    (tmp_path / "arena-stress.yaml").write_text(FILE, encoding="utf-8")
    (tmp_path / "conftest.py").write_text("import toys\n\ntoys.install()\n", encoding="utf-8")
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n", encoding="utf-8")
    monkeypatch.setenv("ARENA_STORE", str(tmp_path / "store"))
    return tmp_path


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=300", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)


def test_each_requirement_is_an_item(place: Path, toys: Path) -> None:
    found = run(place, "--arena", "arena-stress.yaml", "-v")
    out = found.stdout
    assert found.returncode == 1, out + found.stderr
    assert "arena-stress.yaml::protection>=0.5 PASSED 0.727 [0.5" in out
    assert "arena-stress.yaml::retention[toy-keep]>=0.5 PASSED 1.000 [1.000, 1.000]" in out
    assert "arena-stress.yaml::psnr>=99 FAILED 30.069 dB" in out
    assert "arena-stress.yaml::ms-ssim>=0.5 ERROR" in out and "not measured on these data" in out
    assert "1 failed, 3 passed, 1 error" in out and "skipped" not in out and "test_other" not in out
    assert "undecided: arena-stress.yaml::ms-ssim>=0.5: not measured on these data" in out
    assert "Traceback" not in out and "def runtest" not in out  # the paragraph, no code
    assert "stages" in found.stderr  # progress is shown although output is captured
    computed = toys.read_text(encoding="utf-8")
    chosen = run(place, "--arena", "arena-stress.yaml", "-k", "protection or budget", "-v")
    assert chosen.returncode == 0 and "2 passed, 3 deselected" in chosen.stdout
    assert toys.read_text(encoding="utf-8") == computed
    one = run(place, "--arena", "arena-stress.yaml", "arena-stress.yaml::psnr>=99", "test_other.py")
    assert "1 failed, 1 passed" in one.stdout


def test_processes_of_xdist_compute_it_once(place: Path, toys: Path) -> None:
    found = run(place, "--arena", "arena-stress.yaml", "-n", "2", "-v", "test_other.py")
    assert found.returncode == 1 and "1 failed, 4 passed, 1 error" in found.stdout, found.stdout + found.stderr
    assert "0.727 [0.5" in found.stdout
    assert max(Counter(toys.read_text(encoding="utf-8").splitlines()).values()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "target: toy-shift\nsuit: x\n",
            "arena-stress.yaml, line 2, suit: there is no such field; did you mean 'suite'?",
        ),
        ("target: toy-shft\nsuite: bright.yaml\n", "there is no folder and no defense 'toy-shft'"),
        (FILE.replace("toy-keep", "toy-kep"), "has no attack 'toy-kep'; did you mean 'toy-keep'?"),
    ],
)
def test_what_cannot_be_asked_is_an_error(place: Path, text: str, says: str) -> None:
    (place / "arena-stress.yaml").write_text(text, encoding="utf-8")
    found = run(place, "--arena", "arena-stress.yaml")
    assert found.returncode in (1, 2) and "error" in found.stdout and "passed" not in found.stdout
    assert says in found.stdout and "arena/stress" not in found.stdout


def test_without_the_option_nothing_is_loaded_or_collected(place: Path) -> None:
    text = (
        "def test_other():\n    import sys\n"
        "    assert 'arena.stress.pytest_plugin' in sys.modules\n"
        "    assert not {'torch', 'pydantic', 'arena.stress.run', 'arena.stress.settings'} & set(sys.modules)\n"
    )
    (place / "test_other.py").write_text(text, encoding="utf-8")
    (place / "conftest.py").unlink()
    found = run(place, ".", "arena-stress.yaml", "-p", "no:hypothesispytest")
    assert "1 passed" in found.stdout, found.stdout
