"""The registry, over fake distributions: a dist-info folder and a module on the path, no pip."""

import inspect
import json
import os
import subprocess
import sys
import textwrap

import pytest

from arena.errors import ArenaError, UsageError
from arena.plugins.base import Attack, Dataset, Defense
from arena.plugins.outline import Facts, about, described, facts
from arena.plugins.registry import BASES, OURS, Registry, describe
from arena.plugins.source import source_digest

PLUGIN = '''
"""A module."""
from typing import Literal

from pydantic import Field

from arena.plugins.base import ImageAttack, PluginConfig
from {name}.helper import identity


class Squeeze(ImageAttack):
    """Squeezes, and
    does not stop.

    At length.
    """

    class Config(PluginConfig):
        quality: int = Field(10, ge=1, le=100, description="the quality")
        mode: Literal["fast", "slow"] = "fast"
        source: str

    needs = frozenset({{"seed"}})

    def purify_images(self, images, world):
        return (identity(image) for image in images)


class Half(ImageAttack):
    pass
'''


class FakeDistribution:
    """Writes a package and its metadata below `root`."""

    def __init__(self, root, name, points, version="1.2"):
        self.root, self.name = root, name
        self.write("__init__.py", "")
        self.write("helper.py", "def identity(x):\n    return x\n")
        self.write("plugins.py", PLUGIN.format(name=name))
        info = root / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        groups = (f"[mmguard_arena.{group}]\n" + "\n".join(lines) for group, lines in points.items())
        (info / "entry_points.txt").write_text("\n".join(groups) + "\n", encoding="utf-8")

    def write(self, file, text):
        path = self.root / self.name / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def digest(self, module="plugins"):
        """The digest as a fresh process would see it."""
        from arena.plugins import source

        for known in (source_digest, source._closure, source._read):
            known.cache_clear()
        return source_digest(f"{self.name}.{module}", frozenset({self.name}))


@pytest.fixture
def install(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def install(name, points, **more):
        names.append(name)
        return FakeDistribution(tmp_path, name, points, **more)

    yield install
    for module in [m for m in sys.modules if m.partition(".")[0] in names]:
        del sys.modules[module]


def test_listing_imports_no_plugin_and_no_heavy_library(install, tmp_path):
    install("fake_lazy", {"attacks": ["squeeze = fake_lazy.plugins:Squeeze"]})
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from arena.plugins.registry import Registry
        registry = Registry()
        entry = registry.get("attack", "squeeze")
        assert entry in registry.entries("attack")
        entry.source_digest()
        heavy = {{"torch", "transformers", "datasets", "fake_lazy", "fake_lazy.plugins"}} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_an_entry_knows_its_origin_and_loads(install):
    install("fake_a", {"attacks": ["squeeze = fake_a.plugins:Squeeze"], "defenses": []}, version="3.1")
    entry = Registry().get("attack", "squeeze")
    assert (entry.kind, entry.id, entry.origin) == ("attack", "squeeze", ("fake_a", "3.1"))
    assert issubclass(entry.load(), Attack)
    assert entry.load().__name__ == "Squeeze"
    assert entry.problem() is None


def test_create_validates_the_settings(install):
    install("fake_b", {"attacks": ["squeeze-b = fake_b.plugins:Squeeze"]})
    plugin = Registry().create("attack", "squeeze-b", {"source": "x", "quality": 30})
    assert plugin.config.model_dump() == {"quality": 30, "mode": "fast", "source": "x"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"source": "x", "quality": 200},
            "attack 'squeeze-c': quality = 200 is refused: Input should be less than or equal to 100 "
            "(allowed: int, >= 1 and <= 100, default 10). `arena show squeeze-c` lists its settings",
        ),
        (
            {"source": "x", "qualty": 3},
            "there is no setting 'qualty'; did you mean 'quality'? (its settings: quality, mode",
        ),
        ({}, "setting 'source' must be given (allowed: str)".replace("allowed: ", "")),
        ({"source": "x", "mode": "medium"}, "(allowed: str, one of 'fast', 'slow', default 'fast')"),
        ({"source": "x", "quality": "many"}, "quality = 'many' is refused"),
    ],
)
def test_a_bad_setting_is_one_paragraph_with_range_and_remedy(install, config, said):
    install("fake_c", {"attacks": ["squeeze-c = fake_c.plugins:Squeeze"]})
    with pytest.raises(UsageError) as error:
        Registry().create("attack", "squeeze-c", config)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_two_bad_settings_are_both_named(install):
    install("fake_c2", {"attacks": ["squeeze-c = fake_c2.plugins:Squeeze"]})
    with pytest.raises(UsageError, match=r"quality = 0 .*; setting 'source' must be given"):
        Registry().create("attack", "squeeze-c", {"quality": 0})


def test_unknown_ids_suggest_near_misses(install):
    install("fake_d", {"attacks": ["squeeze-d = fake_d.plugins:Squeeze"]})
    with pytest.raises(UsageError, match=r"no attack is called 'sqeeze-d'; did you mean 'squeeze-d'\?; `arena list`"):
        Registry().get("attack", "sqeeze-d")
    with pytest.raises(UsageError, match=r"no defense is called 'squeeze-d' \('squeeze-d' is the id of: attack\)"):
        Registry().get("defense", "squeeze-d")


def test_one_id_of_two_distributions_is_refused_and_both_are_named(install):
    install("fake_e", {"attacks": ["squeeze-e = fake_e.plugins:Squeeze", "other-e = fake_e.plugins:Squeeze"]})
    install(
        "fake_f", {"attacks": ["squeeze-e = fake_f.plugins:Squeeze"], "defenses": ["other-e = fake_f.plugins:Squeeze"]}
    )
    registry = Registry()
    for use in (registry.get, registry.configure, registry.create):
        with pytest.raises(UsageError, match=r"'squeeze-e' is declared by fake_e 1\.2 and fake_f 1\.2: uninstall"):
            use("attack", "squeeze-e")
    listed = {entry.id: entry.problem() for entry in registry.entries("attack")}
    assert "fake_f" in listed["squeeze-e"]
    assert listed["other-e"] is None


@pytest.mark.parametrize("id", ["Squeeze", "a+b", "a_b", "-a", "a-", "a b", "\u00e4"])
def test_ids_are_lower_case_letters_digits_and_hyphens(install, id):
    install("fake_g", {"attacks": [f"{id} = fake_g.plugins:Squeeze"]})
    with pytest.raises(
        UsageError, match=r"of package fake_g 1\.2: an id is made of lower case letters, digits and hyphens"
    ):
        Registry().get("attack", id)


def test_a_broken_plugin_costs_only_itself(install):
    package = install(
        "fake_h",
        {
            "attacks": [
                "broken = fake_h.broken:Squeeze",
                "gone = fake_h.plugins:Gone",
                "quits = fake_h.quits:X",
                "fine-h = fake_h.plugins:Squeeze",
            ]
        },
    )
    package.write("broken.py", "import no_such_library\n")
    package.write("quits.py", "raise SystemExit(3)\n")
    registry = Registry()
    listed = {entry.id: entry.problem() for entry in registry.entries("attack") if entry.origin.package == "fake_h"}
    assert listed["fine-h"] is None
    assert "package fake_h 1.2 cannot be imported" in listed["broken"]
    assert "ModuleNotFoundError: No module named 'no_such_library'" in listed["broken"]
    assert "AttributeError" in listed["gone"]
    assert "SystemExit: 3" in listed["quits"]
    with pytest.raises(ArenaError, match="no_such_library"):
        registry.create("attack", "broken", {})


@pytest.mark.parametrize(
    ("group", "kind", "target", "said"),
    [
        ("defenses", "defense", "plugins:Squeeze", r"not a subclass of arena\.plugins\.base\.Defense"),
        ("attacks", "attack", "helper:identity", r"not a subclass of arena\.plugins\.base\.Attack"),
        ("attacks", "attack", "plugins:Half", "does not implement purify_images"),
        ("attacks", "attack", "settings:Loose", "Config is not a subclass"),
        ("attacks", "attack", "plugins", "not of the form module:Class"),
    ],
)
def test_what_is_no_plugin_of_its_kind_is_refused(install, group, kind, target, said):
    package = install("fake_i", {group: [f"odd = fake_i.{target}"]})
    package.write("settings.py", "from arena.plugins.base import Attack\nclass Loose(Attack):\n    Config = dict\n")
    with pytest.raises(UsageError, match=said):
        Registry().create(kind, "odd", {})


def test_describe_says_what_show_prints(install):
    install("fake_j", {"attacks": ["squeeze-j = fake_j.plugins:Squeeze"]})
    entry = Registry().get("attack", "squeeze-j")
    shown = describe(entry)
    assert shown["doc"] == "Squeezes, and\ndoes not stop.\n\nAt length."
    assert shown["needs"] == ["seed"]
    assert shown["origin"] == {"package": "fake_j", "version": "1.2"}
    assert shown["digest"] == entry.source_digest()
    assert [s["name"] for s in shown["config"]] == ["quality", "mode", "source"]
    assert shown["config"][0] == {
        "name": "quality",
        "type": "int",
        "default": "10",
        "range": ">= 1 and <= 100",
        "description": "the quality",
    }
    assert shown["config"][2]["default"] is None


def test_the_digest_ignores_how_code_is_written(install):
    package = install("fake_k", {})
    before = package.digest()
    package.write("helper.py", '"""New."""\n\n\ndef identity( x ):  # same\n    """Doc."""\n    return (x)\n')
    assert package.digest() == before
    package.write("unrelated.py", "x = 1\n")
    assert package.digest() == before


@pytest.mark.parametrize(
    "text",
    [
        "def identity(x):\n    return x.copy()\n",
        "def identity(x, y=0):\n    return x\n",
        "X = 1\ndef identity(x):\n    return x\n",
    ],
)
def test_the_digest_sees_code_of_imported_modules(install, text):
    package = install("fake_l", {})
    before = package.digest()
    package.write("helper.py", text)
    assert package.digest() != before


@pytest.mark.parametrize(
    ("statement", "counts"),
    [
        ("import fake_m.deep", True),
        ("from fake_m import deep", True),
        ("from . import deep", True),
        ("from .deep import x", True),
        ("from fake_m.deep import *", True),
        ("def later():\n    from fake_m import deep", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fake_m import deep", False),
        ("import json", False),
        ("", False),
    ],
)
def test_which_imports_the_digest_follows(install, statement, counts):
    package = install("fake_m", {})
    package.write("helper.py", f"{statement}\ndef identity(x):\n    return x\n")
    package.write("deep.py", "x = 1\n")
    before = package.digest()
    package.write("deep.py", "x = 2\n")
    assert (package.digest() != before) == counts


def test_a_package_counts_where_something_is_taken_from_it(install):
    package = install("fake_n", {})
    package.write("__init__.py", "limit = 1\n")
    way = package.digest()
    package.write("helper.py", "from fake_n import limit\n\n\ndef identity(x):\n    return x\n")
    taken = package.digest()
    package.write("__init__.py", "limit = 2\n")
    assert package.digest() != taken
    package.write("helper.py", "def identity(x):\n    return x\n")
    assert package.digest() == way


def test_circular_imports_end(install):
    package = install("fake_o", {})
    package.write("helper.py", "import fake_o.plugins\n\n\ndef identity(x):\n    return x\n")
    assert len(package.digest()) == 64


def test_source_that_is_missing_or_does_not_parse(install):
    package = install("fake_p", {"attacks": ["squeeze-p = fake_p.absent:Squeeze"]})
    with pytest.raises(ArenaError, match=r"'fake_p\.absent' has no source file"):
        Registry().get("attack", "squeeze-p").source_digest()
    package.write("helper.py", "def identity(:\n")
    with pytest.raises(ArenaError, match=r"helper\.py is not valid Python"):
        package.digest()


def test_the_arenas_own_modules_are_in_the_digest_but_for_the_engines(install):
    """A plugin does what the arena's modules do that it imports; those of the engine have a digest of their own."""
    from arena.plugins.registry import FIRST_PARTY

    package = install("fake_q", {"attacks": ["squeeze-q = fake_q.plugins:Squeeze"]})
    own = frozenset({"fake_q"})
    alone = package.digest()
    assert Registry().get("attack", "squeeze-q").source_digest() == source_digest("fake_q.plugins", FIRST_PARTY | own)
    assert source_digest("fake_q.plugins", FIRST_PARTY | own) == alone  # it imports `arena.plugins.base` alone
    package.write("helper.py", "import arena.budget\n\n\ndef identity(x):\n    return x\n")
    budget = package.digest()
    assert source_digest("fake_q.plugins", FIRST_PARTY | own) == budget
    package.write("helper.py", "import arena.lvlm.perturbation\n\n\ndef identity(x):\n    return x\n")
    perturbation = package.digest()
    assert source_digest("fake_q.plugins", FIRST_PARTY | own) != perturbation
    assert Registry().get("attack", "squeeze-q").source_digest() == source_digest("fake_q.plugins", FIRST_PARTY | own)


def test_kinds_return_their_types(install):
    package = install("fake_r", {"defenses": ["keep-r = fake_r.more:Keep"], "datasets": ["data-r = fake_r.more:Data"]})
    package.write(
        "more.py",
        """
        from arena.data.sample import Splits
        from arena.plugins.base import Dataset, Draft, Defense

        class Keep(Defense):
            def protect(self, samples, world):
                return [Draft(s.image, s.question) for s in samples]

        class Data(Dataset):
            def load(self, train, auxiliary, test, seed):
                return Splits((), (), ())
        """,
    )
    registry = Registry()
    assert isinstance(registry.create("defense", "keep-r"), Defense)
    assert isinstance(registry.create("dataset", "data-r"), Dataset)


def test_what_plugins_are_about_is_read_from_their_source(install):
    package = install(
        "fake_i",
        {
            "attacks": [
                "squeeze-i = fake_i.plugins:Squeeze",
                "half-i = fake_i.plugins:Half",
                "elsewhere-i = fake_i.elsewhere:Squeeze",
                "torn-i = fake_i.torn:Squeeze",
                "gone-i = fake_i.plugins:Gone",
                "Bad = fake_i.plugins:Squeeze",
            ]
        },
    )
    package.write("elsewhere.py", "from fake_i.plugins import Squeeze\n")
    package.write("torn.py", "class Squeeze(\n")
    entries = {entry.id: entry for entry in Registry().entries("attack") if entry.origin.package == "fake_i"}
    assert about(entries["squeeze-i"]) == "Squeezes, and does not stop." and about(entries["half-i"]) == ""
    assert "fake_i.plugins" not in sys.modules
    assert about(entries["torn-i"]).startswith("broken: ") and "SyntaxError" in about(entries["torn-i"])
    assert "lower case letters" in about(entries["Bad"])
    assert about(entries["elsewhere-i"]) == "Squeezes, and does not stop."
    assert "AttributeError" in about(entries["gone-i"])


def test_facts_about_plugins_are_read_from_their_source(install):
    package = install(
        "fake_k",
        {
            "defenses": [
                "plain-k = fake_k.plugins:Plain",
                "heir-k = fake_k.plugins:Heir",
                "circle-k = fake_k.circle:Around",
                "gone-k = fake_k.plugins:Gone",
            ]
        },
    )
    package.write("base.py", "class Base:\n    needs: frozenset = frozenset({'seed', 'surrogates'})\n")
    package.write("circle.py", "from fake_k.circle import Other\n\n\nclass Around(Other):\n    pass\n")
    package.write(
        "plugins.py",
        """
        \"\"\"Noise, as of Doe, Roe and Poe 1999.\"\"\"

        from fake_k.base import Base as Root


        class Plain:
            \"\"\"Plain noise, which others call loud (Van Doe 2020, arXiv
            2001.00001; Roe 2021).

            Budget: L2 on pictures.
            \"\"\"

            needs = frozenset({"seed"})


        class Middle(Root):
            pass


        class Heir(Middle):
            \"\"\"Budget: none. It is said within a line.\"\"\"
        """,
    )
    entries = {entry.id: entry for entry in Registry().entries("defense") if entry.origin.package == "fake_k"}
    assert facts(entries["plain-k"]) == Facts("L2 on pictures", ("seed",), "Van Doe 2020, arXiv 2001.00001")
    assert facts(entries["heir-k"]) == Facts("", ("seed", "surrogates"), "Doe, Roe and Poe 1999")
    assert facts(entries["circle-k"]) == Facts("", (), "")
    assert "fake_k.plugins" not in sys.modules
    assert facts(entries["gone-k"]) == Facts("", (), "")


@pytest.mark.parametrize("kind", BASES)
def test_facts_about_our_plugins_are_those_of_their_classes(kind):
    for entry in Registry().entries(kind):
        if entry.origin.package == OURS:
            found, cls = facts(entry), entry.load()
            assert set(found.needs) == cls.needs, entry.id
            assert bool(found.budget) == (kind == "defense"), entry.id
            if found.source:
                assert all(part in inspect.getsource(inspect.getmodule(cls)) for part in found.source.split()), entry.id


def test_a_plugin_is_described_anew_just_when_source_changed(install, tmp_path):
    package = install("fake_j", {"attacks": ["squeeze-j = fake_j.plugins:Squeeze"]})
    cache = tmp_path / "cache"

    def text():
        """As another process has it, and whether it imported the plugin."""
        code = (
            "import json, sys; from pathlib import Path; from arena.plugins.outline import described; "
            "from arena.plugins.registry import Registry; "
            "found = described(Registry().get('attack', 'squeeze-j'), Path(sys.argv[1])); "
            "print(json.dumps([found, 'fake_j.plugins' in sys.modules]))"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(package.root), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, str(cache)], env=environment, check=True, capture_output=True
        )
        return json.loads(done.stdout)

    first, imported = text()
    assert imported and first == described(Registry().get("attack", "squeeze-j"), tmp_path / "other")
    assert first["doc"] == "Squeezes, and\ndoes not stop.\n\nAt length." and first["config"][0]["name"] == "quality"
    assert text() == [first, False]
    package.write("plugins.py", PLUGIN.format(name="fake_j").replace("the quality", "how good"))
    changed, imported = text()
    assert imported and changed["config"][0]["description"] == "how good" and changed["digest"] != first["digest"]
    (kept,) = cache.iterdir()
    for content in ("{", "[]", '{"state": 1}'):
        kept.write_text(content, encoding="utf-8")
        assert text() == [changed, True]
    assert text() == [changed, False]
    cache.chmod(0o500)
    package.write("helper.py", "def identity(x):\n    y = x\n    return y\n")
    assert text()[0]["digest"] != changed["digest"]
