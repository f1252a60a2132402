"""`arena explain` on folders that `arena protect` made: parts that a release lacks, refusals, the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from owner_folder import QUICK, load_checkpoint, tree, write_checkpoint, write_owner_folder
from PIL import Image
from typer.testing import CliRunner

from arena.budget import Budget
from arena.cli.app import app
from arena.errors import ArenaError, UsageError
from arena.owner.explain import explain
from arena.owner.protect import protect_folder
from arena.owner.report import read_report
from arena.release import read_imagefolder, read_release
from mmguard.explain import explain as measure
from mmguard.picture import draw

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_owner_folder(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory, source: Path, checkpoint: Path) -> Path:
    out = tmp_path_factory.mktemp("crafted") / "out"
    config = {**QUICK, "pgd_steps": 3, "tau_delta": 0.2}
    protect_folder(source, out, "mmguard-bph", [f"llava={checkpoint}"], config=config, budget=Budget(image=4, text=3))
    return out


def test_it_is_the_samples_pair_at_the_releases_model(source: Path, checkpoint: Path, crafted: Path) -> None:
    found = explain(crafted, 2, layer=2)
    trigger = read_report(crafted).samples[2].trigger
    pair = read_imagefolder(source)[2], read_release(crafted / "data")[2]
    wanted = measure(load_checkpoint(checkpoint), *pair, trigger, 2, 0.2, "llava")
    assert found.surrogate == "llava" and found.trigger == trigger is not None
    assert found.pairs == wanted.pairs and found.bounds == wanted.bounds and found.tokens == wanted.tokens
    assert np.array_equal(found.protected_map, wanted.protected_map)


@pytest.mark.parametrize("defense", ["random", "mmguard-text", "none"])
def test_parts_that_a_release_lacks_are_said(source: Path, checkpoint: Path, tmp_path: Path, defense: str) -> None:
    out, name = tmp_path / "out", f"llava={checkpoint}"
    config = {"rounds": 1, "candidates": 2, "rank": 2} if defense == "mmguard-text" else {}
    surrogates = [name] if defense == "mmguard-text" else []
    protect_folder(source, out, defense, surrogates, config=config, limit=2)
    if not surrogates:
        with pytest.raises(UsageError, match="made without a surrogate model: name one with --surrogate"):
            explain(out, 1)
    found = explain(out, 1, name)
    by_name = {pair.name: (pair.clean, pair.protected) for pair in found.pairs}
    assert by_name["trigger → Ω_δ"] == (None, None)
    assert (by_name["answer → trigger"][1] is not None) == (defense == "mmguard-text")
    assert all((side is not None) == (defense == "random") for side in by_name["answer → Ω_δ"])
    assert [b.target for b in found.bounds] == {"random": ["Ω_δ"], "mmguard-text": ["trigger"], "none": []}[defense]
    if defense == "none":
        assert np.allclose(found.clean_map, found.protected_map)
    draw(found, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.size[0] > 1000


def test_refusals(checkpoint: Path, tmp_path: Path) -> None:
    source = write_owner_folder(tmp_path / "owner")
    out, name = tmp_path / "out", f"llava={checkpoint}"
    protect_folder(source, out, "random", [name], limit=2)
    with pytest.raises(UsageError, match="2 samples, numbered from 0: there is no 2"):
        explain(out, 2)
    with pytest.raises(UsageError, match="layers 1 to 2: there is no 3"):
        explain(out, 0, layer=3)
    with pytest.raises(UsageError, match=r"has no report\.json"):
        explain(source, 0)
    picture = source / "a b" / "übung.png"
    content = picture.read_bytes()
    Image.new("RGB", (48, 48)).save(picture)
    with pytest.raises(ArenaError, match=r"'a b/übung\.png' is needed, and .* no longer has it as it was"):
        explain(out, 0)
    picture.write_bytes(content)
    Image.new("RGB", (48, 48)).save(out / "data" / "a b" / "übung.png")
    with pytest.raises(ArenaError, match="was changed since the release was made"):
        explain(out, 0)
    source.rename(tmp_path / "moved")
    with pytest.raises(ArenaError, match="is needed and cannot be read again"):
        explain(out, 1)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (out / "report.json").write_text(json.dumps({**report, "schema_version": 0}), encoding="utf-8")
    with pytest.raises(ArenaError, match="damaged or from another version"):
        explain(out, 1)


def test_the_command_prints_the_numbers(crafted: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", "from arena.cli.app import main; main()", "explain", str(crafted), "--sample", "1"]
    command += ["--layer", "2", "--out", str(tmp_path / "p.png")]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = explain(crafted, 1, layer=2)
    for pair in found.pairs:
        assert pair.protected is not None
        for k, value in enumerate(pair.protected):
            clean = "-" if pair.clean is None else f"{pair.clean[k]:.4f}"
            assert f"{clean} / {value:.4f}" in ran.stdout
    assert f"eta {found.bounds[0].eta:.4f}" in ran.stdout
    for words in ("added words → changed parts", "answer → added words", "outlined in the drawing", "Omega_delta"):
        assert words in ran.stdout
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG"
    draw(found, tmp_path / "q.png")
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()


def test_nothing_is_cut_off_where_there_is_little_room(crafted: Path, tmp_path: Path) -> None:
    words = ["explain", str(crafted), "--sample", "1", "--layer", "2", "--out", str(tmp_path / "p.png")]
    ran = CliRunner().invoke(app, words, env={"COLUMNS": "40"}, catch_exceptions=False)
    shown = "".join(ran.stdout.split())
    found = explain(crafted, 1, layer=2)
    assert "…" not in ran.stdout and max(map(len, ran.stdout.splitlines()[:-1])) <= 40
    for pair in found.pairs:
        for side in (pair.clean, pair.protected):
            assert all(f"{value:.4f}" in shown for value in side or ())


def test_no_picture_takes_the_place_of_another_file(
    crafted: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arena.owner.explain.explain", lambda *arguments: pytest.fail("it was measured before"))
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    cases = {
        photo: "is not a picture that `arena explain` made: it is left as it is",
        crafted / "report.json": "is not a picture that `arena explain` made",
        tmp_path / "folder.png": "is not a picture that `arena explain` made",
        tmp_path / "link.png": "is not a picture that `arena explain` made",
        source / "grey.png": "would lie among the samples",
        source / "new.png": "would lie among the samples",
        crafted / "data" / "new.png": "would lie among the samples",
    }
    for path, said in cases.items():
        before = tree(source) | tree(crafted) | tree(tmp_path)
        words = ["explain", str(crafted), "--sample", "1", "--out", str(path)]
        ran = CliRunner().invoke(app, words)
        assert isinstance(ran.exception, ArenaError) and said in str(ran.exception) and str(path) in str(ran.exception)
        assert tree(source) | tree(crafted) | tree(tmp_path) == before


def test_a_picture_takes_the_place_of_an_earlier_one(crafted: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "p.png"
    words = ["explain", str(crafted), "--sample", "0", "--out", str(path)]
    for _ in range(2):
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert [p.name for p in path.parent.iterdir()] == ["p.png"]
