"""Damage: one changed digit anywhere in an artifact, artifacts in each other's place, and what a run makes of it."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suites import toy_suite

from arena.engine.execute import RunReport, run
from arena.records.schema import Record
from arena.store.local import MissingArtifact, Store
from arena.store.manifest import MANIFEST, Manifest

KEY, OTHER_KEY = "a" * 64, "b" * 64


def fill(store: Store, key: str = KEY, text: str = "1") -> Path:
    with store.put(key, "data", {"size": 2}, {"threads": 1}) as folder:
        (folder / "outcome.json").write_text(json.dumps({"accuracy": float(text)}), encoding="utf-8")
        (folder / "sub").mkdir()
        (folder / "sub" / "data.bin").write_bytes(bytes(100))
    return store.require(key)


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["outcome.json", "sub/data.bin"])
def test_every_changed_byte_of_a_file_is_found(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = fill(Store(tmp_path / "store")) / name
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flip(path, place)
        caplog.clear()
        with caplog.at_level(logging.WARNING), pytest.raises(MissingArtifact):
            Store(tmp_path / "store").require(KEY)
        assert f"{name} has changed" in caplog.text and KEY not in Store(tmp_path / "store")
        fill(Store(tmp_path / "store"))
        assert path.read_bytes() == whole


def test_every_changed_byte_of_a_manifest_is_found(tmp_path: Path) -> None:
    path = fill(Store(tmp_path / "store")) / MANIFEST
    whole, good = path.read_bytes(), tmp_path / "good"
    before = Manifest.model_validate_json(whole)
    shutil.copytree(path.parent, good)
    for place in range(len(whole)):
        flip(path, place)
        found = Store(tmp_path / "store").look(KEY)
        assert found is None or found == before  # such as one kind of blank for another
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(good, path.parent)
    assert Store(tmp_path / "store").look(KEY) == before


def test_a_manifest_from_before_there_were_seals_holds(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = fill(store) / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["seal"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Store(tmp_path / "store").require(KEY) == path.parent
    content["digest"] = "0" * 64
    path.write_text(json.dumps(content), encoding="utf-8")
    assert KEY not in Store(tmp_path / "store")


def test_exchanged_artifacts_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "store")
    one, other = fill(store), fill(store, OTHER_KEY, "2")
    exchange(one, other)
    with caplog.at_level(logging.WARNING):
        assert KEY not in store and OTHER_KEY not in store
    assert "it is that of another artifact" in caplog.text
    one, other = fill(store), fill(store, OTHER_KEY, "2")
    exchange(one / "outcome.json", other / "outcome.json")
    for key in (KEY, OTHER_KEY):
        with pytest.raises(MissingArtifact):
            store.require(key)


def test_a_file_is_read_again_only_if_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    path = fill(store) / "outcome.json"
    with monkeypatch.context() as patch:
        patch.setattr("arena.store.folder.digest_file", lambda path: pytest.fail("it was read again"))
        assert store.require(KEY) == path.parent
    about = path.stat()
    flip(path, 5)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(MissingArtifact):
        store.require(KEY)


@pytest.mark.parametrize("kind", ["file", "link", "loop", "manifest is a folder"])
def test_something_else_in_its_place(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "store")
    path = fill(store)
    if kind == "manifest is a folder":
        (path / MANIFEST).unlink()
        (path / MANIFEST).mkdir()
    else:
        shutil.rmtree(path)
        if kind == "file":
            path.write_text("what is this", encoding="utf-8")
        else:
            path.symlink_to("nowhere")
    assert KEY not in store and store.get(KEY) is None
    assert fill(store).is_dir()


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


# What a run makes of it


def go(tmp_path: Path, name: str, **changes: Any) -> RunReport:
    return run(
        toy_suite(**changes),
        store=tmp_path / "store",
        results=tmp_path / f"{name}.jsonl",
        console=Console(file=io.StringIO()),
        scheduler="sync",
    )


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores that `first` fills are kept."""
    return tmp_path_factory.mktemp("computed")


def first(computed: Path, tmp_path: Path, seeds: tuple[int, ...] = (0, 1)) -> RunReport:
    """A run into an empty store, which is done once for each choice of seeds; each test has a copy of that store."""
    kept = computed / f"{len(seeds)} seeds"
    if not kept.exists():
        assert not go(kept, "whole", seeds=seeds).failed
    shutil.copytree(kept / "store", tmp_path / "store")
    report = go(tmp_path, "first", seeds=seeds)
    assert not report.computed
    return report


def essence(records: tuple[Record, ...]) -> dict[str, Any]:
    """Records by cell without what differs between runs: cost and time."""
    return {r.cell: r.model_dump(exclude={"cost", "created"}) for r in records}


def artifacts(report: RunReport, kind: str) -> list[Path]:
    keys = report.plan.artifacts().keys
    store = report.plan.store
    return [store.require(key) for name, key in keys.items() if report.plan.stages[name].kind == kind]


def change_digit(path: Path) -> None:
    """Another digit for the last one that is not part of a longer name."""
    text = path.read_text(encoding="utf-8")
    found = list(re.finditer(r"(?<![0-9a-f])[01](?![0-9a-f])", text)) or list(re.finditer(r"[0-9]", text))
    place = found[-1].start()
    path.write_text(f"{text[:place]}{1 - int(text[place]) % 2}{text[place + 1 :]}", encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("scored", "outcome.json"),
        ("stealth", "stealth.json"),
        ("zero-shot", "outcome.json"),
        ("data", "samples.json"),
        ("release", "samples.json"),
        ("purified", "samples.json"),
        ("fine-tuned", "history.json"),
        ("release", MANIFEST),
    ],
)
def test_one_changed_digit_comes_into_no_record(
    tmp_path: Path, toys: Path, computed: Path, kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = first(computed, tmp_path, (0,))
    for folder in artifacts(before, kind):
        change_digit(folder / name)
    caplog.clear()
    again = go(tmp_path, "again", seeds=[0])
    assert essence(again.records) == essence(before.records) and not again.failed
    assert "is corrupt" in caplog.text and {before.plan.stages[n].kind for n in again.computed} == {kind}


def test_exchanged_artifacts_come_into_no_record(tmp_path: Path, toys: Path, computed: Path) -> None:
    before = first(computed, tmp_path)
    for kind in ("scored", "release", "data"):
        exchange(*artifacts(before, kind)[:2])
    again = go(tmp_path, "again")
    assert essence(again.records) == essence(before.records)
    assert len(again.computed) == 6


def spoil(path: Path, rng: random.Random) -> None:
    """Damage as disks do it."""
    size = path.stat().st_size
    kinds: list[Callable[[], object]] = [
        lambda: flip(path, rng.randrange(size), rng.randrange(8)),
        lambda: os.truncate(path, rng.randrange(size)),
        lambda: path.write_bytes(bytes(size)),
        lambda: path.write_bytes(rng.randbytes(size)),
        lambda: path.write_bytes(path.read_bytes() + rng.randbytes(3)),
        path.unlink,
    ]
    rng.choices(kinds, [10, 1, 1, 1, 1, 1])[0]()


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_comes_into_no_record(tmp_path: Path, toys: Path, computed: Path, seed: int) -> None:
    rng = random.Random(seed)
    expected = essence(first(computed, tmp_path, (0,)).records)
    for number in range(3):
        files = sorted(path for path in (tmp_path / "store").glob("??/**/*") if path.is_file())
        for path in rng.sample(files, 4):
            spoil(path, rng)
        report = go(tmp_path, f"again-{number}", seeds=[0])
        assert essence(report.records) == expected, f"seed {seed}, round {number}"
