"""Who knows what: walks everything reachable from what plugins were handed, and looks for what they must not know."""

from __future__ import annotations

import functools
import gc
import io
import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from suites import toy_suite

from arena.budget import Budget
from arena.data.sample import Sample
from arena.engine.execute import run
from arena.engine.job import party_seed
from arena.plugins.base import AttackerWorld
from arena.plugins.registry import Registry
from arena.store.local import Store

_CODE = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType, property, classmethod, staticmethod)
"""What every object leads to, its class's module and so the whole program: code, not what this party was handed."""


def reachable(roots: Iterable[object]) -> Iterator[object]:
    """Every object that the roots hold, directly or not: attributes, containers, closures, partial arguments."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, _CODE):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, types.FunctionType):
            stack += [cell.cell_contents for cell in thing.__closure__ or ()]
            stack += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        else:
            stack += gc.get_referents(thing)


def pictures(things: Iterable[object]) -> set[bytes]:
    return {t.tobytes() for t in things if isinstance(t, Image.Image)}


def texts(things: Iterable[object]) -> list[str]:
    """Strings, paths, and the text files of folders that are pointed to."""
    found = []
    for thing in things:
        if isinstance(thing, str):
            found.append(thing)
        elif isinstance(thing, Path):
            found.append(str(thing))
            files = thing.rglob("*") if thing.is_dir() else []
            found += [f.read_text(encoding="utf-8") for f in files if f.suffix in (".json", ".jsonl")]
    return found


@pytest.fixture
def handed(tmp_path: Path, toys: Path) -> dict[str, list[object]]:
    """What defenses and attacks were handed in a run on protected releases; the clean ones were computed before."""
    import toys as module

    attacks: list[Any] = ["none", "toy-invert", "toy-drawn", {"id": "toy-fitted", "auxiliary": 0.5}, "toy-trained"]
    for defenses in (["none"], ["none", "toy-noise", "toy-crafted"]):
        for objects in module.HANDED.values():
            objects.clear()
        report = run(
            toy_suite(defenses=defenses, attacks=attacks, surrogates=["toy-relative"], seeds=[5]),
            store=tmp_path / "store",
            results=tmp_path / "r.jsonl",
            scheduler="sync",
            isolated=False,
            console=Console(file=io.StringIO()),
        )
        assert not report.failed
    # the release of toy-crafted equals its originals: what attacks see of it is not what this test is about
    assert len(module.HANDED["defense"]) == 7 and len(module.HANDED["attack"]) >= 8
    return module.HANDED


def splits() -> tuple[list[Sample], list[Sample], list[Sample]]:
    loaded = Registry().create("dataset", "toy-data").load(8, 4, 6, 0)
    return list(loaded.train), list(loaded.auxiliary), list(loaded.test)


@pytest.mark.parametrize("party", ["defense", "attack"])
def test_no_party_reaches_test_samples(handed: dict[str, list[object]], party: str) -> None:
    test = splits()[2]
    things = list(reachable(handed[party]))
    samples = [t for t in things if isinstance(t, Sample)]
    assert samples, "the walk finds what was handed"
    assert not {s.id for s in samples} & {s.id for s in test}
    assert not pictures(things) & {s.image.tobytes() for s in test}


def test_attacker_does_not_reach_clean_originals(tmp_path: Path, toys: Path) -> None:
    import toys as module

    for defenses in (["none"], ["none", "toy-noise"]):
        module.HANDED["attack"].clear()
        run(
            toy_suite(defenses=defenses, attacks=["none", "toy-invert", "toy-drawn"], seeds=[5]),
            store=tmp_path / "store",
            results=tmp_path / "r.jsonl",
            scheduler="sync",
            isolated=False,
            console=Console(file=io.StringIO()),
        )
    seen = pictures(reachable(module.HANDED["attack"]))
    assert len(seen) >= 8
    assert not seen & {s.image.tobytes() for s in splits()[0]}


def test_attacker_reaches_nothing_about_the_defense(handed: dict[str, list[object]], tmp_path: Path) -> None:
    things = list(reachable(handed["attack"]))
    assert not [t for t in things if isinstance(t, Budget | Store)]
    for text in texts(things):
        assert not any(name in text for name in ("toy-noise", "toy-crafted", "toy-relative", "ToyNoise", "strength"))
    numbers = {t for t in things if isinstance(t, int)}
    assert party_seed("defense", 5) not in numbers and party_seed("attack", 5) in numbers


def test_defender_reaches_no_attack_target_or_store(handed: dict[str, list[object]], tmp_path: Path) -> None:
    things = list(reachable(handed["defense"]))
    assert any(isinstance(t, Budget) for t in things)
    assert not [t for t in things if isinstance(t, Store | AttackerWorld)]
    for text in texts(things):
        assert not any(name in text for name in ("toy-invert", "toy-drawn", "toy-fitted", "toy-recipe", "ToyModel-"))
        allowed = rf"{re.escape(str(tmp_path / 'store'))}/(workspaces|stages/[\w-]+/(given|made))"  # its own folder
        assert str(tmp_path / "store") not in re.sub(allowed, "", text)


def test_the_walk_finds_a_leak() -> None:
    secret = Sample("secret", Image.fromarray(np.zeros((2, 2), np.uint8)), "what?", "zero")
    leaks = [
        AttackerWorld(model=lambda: secret),  # type: ignore[arg-type, return-value]
        AttackerWorld(model=functools.partial(print, secret)),  # type: ignore[arg-type]
        AttackerWorld(auxiliary=(secret,)),
    ]
    for world in leaks:
        assert any(t is secret for t in reachable([world]))
    assert not any(t is secret for t in reachable([AttackerWorld(seed=1)]))
