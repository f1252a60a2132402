"""Source digests: what is computed moves them, how it is written does not, nor which Python reads it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arena.plugins import source
from arena.plugins.source import canonical, engine_digest

ROOT = Path(__file__).parents[3]

PLAIN = """
import math

LIMIT = 8


def half(x, *, by=2):
    total = x / by
    for step in [1, 2]:
        total += step
    return f"{total:.2f} of " + 'all'


class Thing:
    size: int = 3

    def area(self):
        return self.size ** 2
"""


def form(text: str) -> object:
    return canonical(ast.parse(text))


REWRITTEN = {
    "comments": PLAIN.replace("LIMIT = 8", "# the most\nLIMIT = 8  # in steps"),
    "docstrings": '"""A module."""\n'
    + PLAIN.replace("by=2):\n", 'by=2):\n    """Half of it."""\n').replace("Thing:\n", 'Thing:\n    """A thing."""\n'),
    "a docstring of an attribute": PLAIN.replace("size: int = 3\n", 'size: int = 3\n    """Its side."""\n'),
    "blank lines and indents": PLAIN.replace("    ", "  ").replace("\n\n\n", "\n"),
    "quotes": PLAIN.replace("'all'", '"all"').replace('f"{total:.2f} of "', "f'''{total:.2f} of '''"),
    "parentheses": PLAIN.replace("x / by", "(x / (by))").replace("return self.size ** 2", "return (self.size) ** (2)"),
    "a line continued": PLAIN.replace("x / by", "x \\\n        / by").replace(
        "[1, 2]", "[\n        1,\n        2,\n    ]"
    ),
    "how a number is written": PLAIN.replace("LIMIT = 8", "LIMIT = 0x8"),
    "a text in two pieces": PLAIN.replace("'all'", "'al' 'l'"),
}


@pytest.mark.parametrize("how", REWRITTEN)
def test_how_code_is_written_does_not_count(how: str) -> None:
    assert REWRITTEN[how] != PLAIN
    assert form(REWRITTEN[how]) == form(PLAIN)


CHANGED = {
    "a variable renamed": PLAIN.replace("total", "sum_"),
    "a constant": PLAIN.replace("LIMIT = 8", "LIMIT = 9"),
    "the type of a constant": PLAIN.replace("LIMIT = 8", "LIMIT = 8.0"),
    "a text": PLAIN.replace("'all'", "'All'"),
    "bytes instead of a text": PLAIN.replace("'all'", "b'all'"),
    "the format of a number": PLAIN.replace(":.2f", ":.3f"),
    "a conversion": PLAIN.replace("{total:.2f}", "{total!r:.2f}"),
    "a default": PLAIN.replace("by=2", "by=3"),
    "keyword only or not": PLAIN.replace("x, *, by", "x, by"),
    "an order": PLAIN.replace("[1, 2]", "[2, 1]"),
    "a list or a tuple": PLAIN.replace("[1, 2]", "(1, 2)"),
    "an operator": PLAIN.replace("total += step", "total -= step"),
    "an annotation": PLAIN.replace("size: int", "size: float"),
    "precedence": PLAIN.replace("self.size ** 2", "-self.size ** 2"),
}


@pytest.mark.parametrize("how", CHANGED)
def test_what_code_does_counts(how: str) -> None:
    assert CHANGED[how] != PLAIN
    assert form(CHANGED[how]) != form(PLAIN)


EQUAL: list[tuple[str, str]] = [
    ('x = f"a{y}b"', 'x = f"a" f"{y}" "b"'),
    ('x = f"a" "b{y}"', 'x = f"ab{{y}}"'),
    ('x = f"{y:{w}.{p}}"', "x = f'{y:{w}.{p}}'"),
    ('x = f"{y:>{w}}" f"{z}"', "x = (f'{y:>{w}}'\n     f'{z}')"),
    ('x = f"{y:a{w}b}"', 'x = f"""{y:a{w}b}"""'),
    ('x = f"{y}" ""', 'x = f"{y}"'),
    ("x = u'a'", "x = 'a'"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_programs_have_equal_forms(one: str, other: str) -> None:
    assert ast.dump(ast.parse(one)) and form(one) == form(other)


def test_empty_fields_are_those_that_are_left_out() -> None:
    """Python 3.13 leaves out what 3.11 fills with an empty list, and 3.12 added parameters of types."""
    tree = ast.parse("class A:\n    def f(self): return g()\n\n\nclass B(A): pass")
    bare = ast.parse("class A:\n    def f(self): return g()\n\n\nclass B(A): pass")
    for node in ast.walk(bare):
        for name, value in list(ast.iter_fields(node)):
            if value in ([], None):
                delattr(node, name)
    before = canonical(tree)
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    node.type_params = []  # type: ignore[attr-defined]
    node._fields = (*node._fields, "type_params")  # type: ignore[misc]
    assert canonical(tree) == before == canonical(bare)


def test_the_cuts_of_an_f_string_do_not_count() -> None:
    """Python 3.11 and 3.12 cut texts between values at other places."""
    (statement,) = ast.parse('f"ab{y}c"').body
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.JoinedStr)
    value = next(v for v in statement.value.values if isinstance(v, ast.FormattedValue))
    cut = ast.JoinedStr([ast.Constant("a"), ast.Constant(""), ast.Constant("b"), value, ast.Constant("c")])
    assert canonical(cut) == canonical(statement.value)
    other = ast.JoinedStr([ast.Constant("a"), value, ast.Constant("bc")])
    assert canonical(other) != canonical(statement.value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no type parameters")
def test_parameters_of_types_count_where_there_are_some() -> None:
    assert form("def f[T](x: T): return x") != form("def f(x: T): return x")
    assert form("def f[T](x: T): return x") == form("def f[T](x: T):\n    return (x)")
    assert form("type A = int") != form("type A = str")


# Under every Python

EVERY = """
import json, sys
from pathlib import Path
from arena.plugins.source import _read, engine_digest, source_digest
found = {}
for package in ("arena", "defenses", "mmguard"):
    for path in sorted(Path(package).rglob("*.py")):
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        found[name] = _read(name)[0]
found["engine"] = engine_digest()
found["em"] = source_digest("defenses.em", frozenset({"arena", "mmguard", "defenses", "attacks"}))
json.dump(found, sys.stdout)
"""

TRICKY = '''
from arena import errors

w, p, y, z = 3, 2, 1.5, "t"


@property
def a(self): return f"{y:{w}.{p}f}" f"-{z!r:>{w}}" "end" f"{{}}"


async def b(*args, k=1, **kw) -> None:
    async with a as c, d:
        [x async for x in c if x]
    try: pass
    except* ValueError: pass
    match y:
        case {"k": 1, **rest}: pass
        case [1, *_] | None: pass
    lambda: (yield)
    print(f"""{
        y
    } and {'nested'}""", b"bytes", 1_000, 1e3, 1j, ..., "\\u00e4")


class C(list, metaclass=type):
    x: int
    def f(self, /, a, *, b=None): global w; del self.x; assert a, "text"
'''


def digests(python: str, folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [python, "-c", EVERY],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def interpreters() -> dict[str, str]:
    """Other supported versions of Python on this machine, by version."""
    places = [Path(p) for name in ("python3.12", "python3.13") if (p := shutil.which(name))]
    places += sorted((Path.home() / ".pyenv" / "versions").glob("3.1[1-9]*/bin/python3"))
    found: dict[str, str] = {}
    for place in places:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([str(place), "-c", code], capture_output=True, text=True, check=False)
        version = done.stdout.strip()
        if done.returncode == 0 and version not in ("", "{}.{}".format(*sys.version_info[:2])):
            found.setdefault(version, str(place))
    return found


OTHERS = interpreters()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as they are now, and a module of what versions of Python see otherwise."""
    return copied(tmp_path_factory.mktemp("tree"))


def copied(folder: Path) -> Path:
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.jsonl", "*.html", "*.png")
    for package in ("arena", "defenses", "mmguard", "attacks"):
        shutil.copytree(ROOT / package, folder / package, ignore=skip)
    (folder / "defenses" / "tricky.py").write_text(TRICKY, encoding="utf-8")
    return folder


@pytest.mark.skipif(not OTHERS, reason="there is no other supported Python here")
@pytest.mark.parametrize("version", sorted(OTHERS) or ["none"])
def test_every_python_reads_the_same(tree: Path, version: str) -> None:
    here, there = digests(sys.executable, tree), digests(OTHERS[version], tree)
    assert len(here) > 100 and {"arena.engine.plan", "defenses.em", "defenses.tricky", "mmguard.image"} <= here.keys()
    assert {name for name in here if here[name] != there[name]} == set()
    assert here.keys() == there.keys()


# What belongs to what


def test_a_plugins_digest_leaves_out_the_engine() -> None:
    first_party = frozenset({"arena", "mmguard", "defenses", "attacks"})
    engine = source._engine()
    whole = source._closure("defenses.em", first_party)
    shared = whole.keys() & engine.keys()
    assert {"arena.plugins.base", "arena.errors"} <= shared and "defenses.em" not in engine
    own = {name: digest for name, digest in whole.items() if name not in engine}
    assert source.source_digest("defenses.em", first_party) == source._total(own) != source._total(whole)
    assert not any(name.partition(".")[0] != "arena" for name in engine)


TOUCHED: list[tuple[str, bool, bool]] = [
    ("arena/errors.py", True, False),
    ("arena/recipes/training.py", True, False),
    ("arena/score/answers.py", True, False),
    ("arena/engine/stages/score.py", True, False),
    ("arena/engine/plan.py", True, False),
    ("arena/engine/harvest.py", True, False),
    ("arena/plugins/base.py", True, False),
    ("arena/cli/suites.py", False, False),
    ("arena/owner/report.py", False, False),
    ("arena/records/verify.py", False, False),
    ("arena/engine/progress.py", False, False),
    ("defenses/em.py", False, True),
    ("defenses/random.py", False, False),
]
"""A file, whether it is of the engine, and whether of the plugin `em`."""

BOTH = """
from arena.plugins.source import engine_digest, source_digest
print(engine_digest(), source_digest("defenses.em", frozenset({"arena", "mmguard", "defenses", "attacks"})))
"""


def both(folder: Path) -> list[str]:
    """The digests of the engine and of `em` for the code in a folder."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", BOTH],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(("file", "engine", "plugin"), TOUCHED)
def test_whose_a_file_is(tree: Path, file: str, engine: bool, plugin: bool) -> None:
    path = tree / file
    text, before = path.read_text(encoding="utf-8"), both(tree)
    try:
        path.write_text(f"{text}\n# a comment\n", encoding="utf-8")
        assert both(tree) == before
        path.write_text(f"{text}\nADDED = 1\n", encoding="utf-8")
        assert [a != b for a, b in zip(before, both(tree), strict=True)] == [engine, plugin]
    finally:
        path.write_text(text, encoding="utf-8")


def test_the_copy_has_the_digest_of_the_code_that_runs(tree: Path) -> None:
    assert both(tree)[0] == engine_digest()


def test_boards_and_methods_are_not_of_the_engine() -> None:
    every = frozenset({"arena", "leaderboards", "mmguard", "defenses", "attacks"})
    reached = {name for root in source.ENGINE for name in source._closure(root, every)}
    assert reached == source._engine().keys()
    outside = ("leaderboards", "defenses", "attacks", "mmguard", "arena.cli", "arena.owner", "arena.lvlm.families")
    assert not [name for name in reached if name.startswith(outside)]
