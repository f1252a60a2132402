"""A plugin that is broken in one way fails the check that is about it, and says which line to look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from arena.kit.check import check_plugin
from arena.kit.new import write_package
from arena.kit.observed import Watch
from arena.kit.outcome import Report


@dataclass(frozen=True)
class Breakage:
    """The check that finds it, what that says, what is replaced in the defense that `arena new` writes, and where the
    line to look at lies."""

    check: str
    said: str
    old: str
    new: str
    at: str = "perturb"


DRAW = "rng = world.rng()"
LOOP = "for sample in samples:"
MADE = "yield Image.fromarray(recoloured(sample.image, after))"
LEVELS = "= floor(world.budget.image)"
SEED = 'frozenset({"seed"})'
DOC = '    """A checkerboard of the whole budget, whose phase is drawn for every picture."""\n'


def lines(*parts: str, depth: int = 2) -> str:
    """Lines of code at the depth of a method's."""
    return f"\n{'    ' * depth}".join(parts)


def drawn(expression: str, *before: str) -> str:
    """The generator made otherwise."""
    return lines(*before, f"rng = np.random.default_rng({expression})")


def first(*statements: str) -> str:
    """Something done before anything else."""
    return lines(*statements, DRAW)


def hushed(*statements: str) -> str:
    """Something tried before anything else, whose refusal is passed over."""
    return first("try:", *(f"    {statement}" for statement in statements), "except Exception:", "    pass")


def each(*statements: str) -> str:
    """Something done for every sample."""
    return lines(LOOP, *statements, depth=3)


BREAKAGES = {
    "a level beyond the budget": Breakage("budget", "> 8/255", LEVELS, f"{LEVELS} + 1"),
    "one draft less": Breakage("contract", "argument 2 is shorter", LOOP, "for sample in samples[1:]:"),
    "another order": Breakage("contract", "another order", LOOP, "for sample in samples[1:] + samples[:1]:"),
    "answers changed": Breakage(
        "contract", "it changed the samples", DRAW, first('object.__setattr__(samples[0], "answer", "no")')
    ),
    "resized": Breakage("contract", "instead of 48 x 48", MADE, f"{MADE}.resize((40, 40))"),
    "another mode": Breakage("budget", "mode changed from 'RGB' to 'L'", MADE, f'{MADE}.convert("L")'),
    "no picture": Breakage("contract", "return a PIL image", MADE, "yield after.tolist()"),
    "the seed ignored": Breakage("seed", "the same under the seeds 0 to 3", DRAW, drawn("3", "world.seed"), "needs"),
    "the seed never read": Breakage("needs", "'seed' and never reads it", DRAW, drawn("3"), "needs"),
    "global randomness": Breakage("seed", "generator of numpy.random", DRAW, drawn("np.random.randint(2**31)")),
    "a global generator set": Breakage("seed", "generator of numpy.random", DRAW, first("np.random.seed(world.seed)")),
    "the clock": Breakage("determinism", "samples differ", DRAW, drawn("time_ns()", "from time import time_ns")),
    "the process id": Breakage("determinism", "samples differ", DRAW, drawn("getpid()", "from os import getpid")),
    "the order of a set": Breakage(
        "determinism", "PYTHONHASHSEED", DRAW, drawn("[len(id) for id in {'a', 'bb', 'ccc', *'defghi'}]")
    ),
    "the number of threads": Breakage("threads", "two threads", DRAW, drawn("torch.get_num_threads()", "import torch")),
    "an undeclared need": Breakage("needs", "asks for 'surrogates'", DRAW, hushed("world.surrogates()")),
    "a file of the system's": Breakage("firewall", "reads /etc/shadow", DRAW, hushed('open("/etc/shadow")')),
    "a file elsewhere": Breakage("firewall", "writes /var/tmp/kit", DRAW, hushed('open("/var/tmp/kit", "w")')),
    "the network": Breakage(
        "firewall",
        "reaches for the network at 127.0.0.1",
        DRAW,
        hushed("import socket", 'socket.create_connection(("127.0.0.1", 9))'),
    ),
    "prints without end": Breakage("contract", "GB", DRAW, first("while True:", '    print("x" * 10**6)')),
    "hangs": Breakage("contract", "time limit", DRAW, first("while True:", "    pass")),
    "a process left behind": Breakage(
        "leftovers", "1 of the processes", DRAW, first("import subprocess", 'subprocess.Popen(["sleep", "600"])')
    ),
    "a setting without description": Breakage(
        "settings", "'period' has no description", ', description="side of a tile in pixels"', "", "period"
    ),
    "a default out of range": Breakage(
        "settings", "read back: period = 0", "setting(2, ge=1", "setting(0, ge=1", "Config"
    ),
    "a setting that is no JSON": Breakage(
        "documented",
        "cannot be described",
        "period: int = setting(2, ge=1",
        'period: float = setting(float("inf"), ge=1',
        "class",
    ),
    "no docstring": Breakage("documented", "no docstring", DOC, "", "class"),
    "a fingerprint that changes": Breakage(
        "recorded",
        "fingerprint",
        "    def _board",
        lines("    def fingerprint(self):", "    import os", "    return str(os.getpid())\n", depth=1)
        + "\n    def _board",
        "fingerprint",
    ),
    "another party's need": Breakage("granted", "the other party's", SEED, 'frozenset({"seed", "model"})', "needs"),
    "no property": Breakage("property", "does not say what distinguishes", "def distinguished", "def told", "class"),
    "the property broken": Breakage(
        "property", "no checkerboard", "change[:, :, None]", "np.roll(change, 1, 0)[:, :, None]", "distinguished"
    ),
    "fails on a single sample": Breakage("one-sample", "ZeroDivisionError", DRAW, first("1 / (len(samples) - 1)")),
    "fails on grey pictures": Breakage(
        "modes", "on sample 'L.png'", "sample.image, after", "sample.image, after[:, :, [0, 1, 2]]"
    ),
    "fails on a pixel": Breakage(
        "sizes", "on sample 'a single pixel'", LOOP, each("assert sample.image.size != (1, 1)")
    ),
    "fails on one word": Breakage("texts", "on sample 'one word'", LOOP, each("sample.question.split()[1]")),
    "fails on what stands twice": Breakage(
        "repeated",
        "AssertionError",
        DRAW,
        first("assert len({sample.image.tobytes() for sample in samples}) == len(samples)"),
    ),
    "fails on a placeholder": Breakage(
        "placeholder", "on sample 'plain-1'", LOOP, each("assert '<' not in sample.question")
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("package")
    return (write_package("defense", "broken-board", folder).folder / "broken_board.py").read_text(encoding="utf-8")


@pytest.fixture
def checked(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Report]]:
    """Checks a defense of some source, which is installed in a folder of its own."""

    def check(name: str, source: str, *only: str, seconds: float = 120) -> Report:
        module = f"board_{name}"
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
        entry = f"[mmguard_arena.defenses]\nbroken-board = {module}:BrokenBoard\n"
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        return check_plugin("defense/broken-board", only=only, seconds=seconds, folder=tmp_path / "kit")

    yield check


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_found(name: str, written: str, checked: Callable[..., Report]) -> None:
    broken = BREAKAGES[name]
    assert broken.old in written
    source = written.replace(broken.old, broken.new)
    if name == "global randomness":
        source = source.replace(f"needs = {SEED}", "needs = frozenset()")
    number = list(BREAKAGES).index(name)
    report = checked(str(number), source, broken.check, seconds=4 if name == "hangs" else 120)
    (found,) = report.failures
    assert found.check == broken.check and broken.said in found.said, str(report)
    place, line = found.where.rsplit(":", 1)
    assert place.endswith(f"board_{number}.py")
    shown = source.splitlines()
    wanted = "class BrokenBoard" if broken.at == "class" else broken.at
    method = next((i for i in range(int(line) - 1, -1, -1) if wanted in shown[i]), None)
    assert method is not None, f"{found.where} is above {wanted}"


def test_a_folder_that_is_emptied_by_its_descriptor_is_where_it_is(tmp_path: Path) -> None:
    """As `shutil.rmtree` empties folders: names are relative to an open folder, not to the current one."""
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        deed = Watch((), [own], [])._deed("os.remove", ("weights", descriptor))
        os.close(descriptor)
        assert deed == (None if folder == own else ("writes", str(other / "weights")))
    assert Watch((), [own], [])._deed("os.remove", ("weights", -1)) == ("writes", str(Path("weights").resolve()))


def test_what_is_not_broken_passes_all_of_these_checks(written: str, checked: Callable[..., Report]) -> None:
    report = checked("whole", written, *{breakage.check for breakage in BREAKAGES.values()})
    assert report.passed and not [o for o in report.outcomes if o.status == "skipped"], str(report)
    assert len(BREAKAGES) >= 15
