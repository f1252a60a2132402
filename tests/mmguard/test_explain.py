"""`arena explain`: the masses are the model's own attention, the picture shows what it claims, refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from owner_folder import QUICK, load_checkpoint, write_checkpoint, write_owner_folder
from PIL import Image

from arena.budget import Budget, colours
from arena.errors import ArenaError, UsageError
from arena.lvlm.base import Role
from arena.owner.protect import protect_folder
from arena.owner.report import read_report
from arena.release import read_imagefolder, read_release
from mmguard.explain import explain
from mmguard.picture import draw

ROOT = Path(__file__).parents[2]
PATCH, SIDE = 8, 6


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


def _blocks(values: torch.Tensor) -> np.ndarray:
    """Values of the 6 x 6 image tokens of a 48 x 48 picture, on its pixels."""
    return np.kron(values.reshape(SIDE, SIDE).numpy(), np.ones((PATCH, PATCH)))


@pytest.mark.parametrize("layer", [1, 2])
def test_masses_are_the_models_attention(source: Path, checkpoint: Path, crafted: Path, layer: int) -> None:
    found = explain(crafted, 0, layer=layer)
    original, released = read_imagefolder(source)[0], read_release(crafted / "data")[0]
    trigger = read_report(crafted).samples[0].trigger
    lvlm = load_checkpoint(checkpoint)

    def attention(sample: object, span: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
        batch = lvlm.encode([sample], triggers=[span])
        with torch.no_grad():
            weights = lvlm.attention(batch, [0, 1])
        return torch.stack([weights[k][0].mean(0) for k in (0, 1)]), batch.roles[0]

    (before, clean_roles), (after, roles) = attention(original, None), attention(released, trigger)

    # Omega_delta from the pixels themselves: at 48 x 48 a patch is an image token
    change = np.abs(colours(released.image).astype(float) - colours(original.image)).mean(2)
    rho = change.reshape(SIDE, PATCH, SIDE, PATCH).mean((1, 3)).flatten()
    chosen = np.zeros(SIDE**2, bool)
    chosen[np.argsort(-rho.round(6), kind="stable")[:8]] = True
    assert found.tokens == 8
    assert np.array_equal(found.omega, _blocks(torch.from_numpy(chosen)) > 0)

    def mass(weights: torch.Tensor, at: torch.Tensor, source_: Role, target: Role | None) -> list[float]:
        rows = weights[:, at == source_].mean(1)
        if target is not None:
            return rows[:, at == target].sum(1).tolist()
        return rows[:, at == Role.IMAGE][:, torch.from_numpy(chosen)].sum(1).tolist()

    pairs = {pair.name: pair for pair in found.pairs}
    assert list(pairs) == ["trigger → Ω_δ", "answer → trigger", "answer → Ω_δ"]
    near = {"rel": 1e-4}
    assert pairs["trigger → Ω_δ"].protected == pytest.approx(mass(after, roles, Role.TRIGGER, None), **near)
    assert pairs["answer → trigger"].protected == pytest.approx(mass(after, roles, Role.ANSWER, Role.TRIGGER), **near)
    assert pairs["answer → Ω_δ"].protected == pytest.approx(mass(after, roles, Role.ANSWER, None), **near)
    assert pairs["answer → Ω_δ"].clean == pytest.approx(mass(before, clean_roles, Role.ANSWER, None), **near)
    assert pairs["trigger → Ω_δ"].clean is None and pairs["answer → trigger"].clean is None

    for shown, weights, at in ((found.clean_map, before, clean_roles), (found.protected_map, after, roles)):
        row = weights[layer - 1][at == Role.ANSWER].mean(0)[at == Role.IMAGE]
        assert np.allclose(shown, _blocks(row), rtol=1e-2)  # the processor's gradients are bfloat16
    for bound in found.bounds:
        assert bound.bound == pytest.approx(1 - np.sqrt(bound.eta / 2), abs=1e-6)
    assert found.bounds[0].measured >= found.bounds[0].bound


def test_a_map_covers_what_the_model_sees(crafted: Path) -> None:
    found = explain(crafted, 4)  # 40 x 64: its upright centre is what the processor keeps
    assert found.clean_map.shape == (64, 40) == found.omega.shape
    seen = found.clean_map.max(1) > 0
    assert seen[14:50].all() and not seen[:10].any() and not seen[54:].any()
    assert found.omega.any() and not found.omega[~seen].any()


def test_the_picture_shows_what_was_measured(crafted: Path, tmp_path: Path) -> None:
    found = explain(crafted, 0)

    def picture(name: str, explanation: object) -> np.ndarray:
        draw(explanation, tmp_path / name)  # type: ignore[arg-type]
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            return np.asarray(image.convert("RGB")).astype(int)

    whole = picture("a.png", found)
    height, width = whole.shape[:2]
    assert np.array_equal(whole, picture("b.png", found))
    for changes, rows, columns in (
        ({"clean_map": found.clean_map[::-1] * np.linspace(0, 1, 48)}, (0.1, 0.6), (0.45, 0.7)),
        ({"protected_map": found.protected_map * np.linspace(0, 1, 48)}, (0.1, 0.6), (0.65, 0.95)),
        ({"omega": found.omega[::-1, ::-1]}, (0.1, 0.6), (0.2, 0.95)),
        ({"pairs": (*found.pairs[:2], dataclasses.replace(found.pairs[2], clean=[0.0, 0.0]))}, (0.6, 1), (0.67, 1)),
    ):
        other = picture("c.png", dataclasses.replace(found, **changes))  # type: ignore[arg-type]
        y, x = (whole != other).any(2).nonzero()
        assert len(y) > 100, changes.keys()
        assert rows[0] * height <= y.min() and y.max() <= rows[1] * height, changes.keys()
        assert columns[0] * width <= x.min() and x.max() <= columns[1] * width, changes.keys()


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
    with Image.open(tmp_path / "p.png") as image:
        assert image.format == "PNG"
    draw(found, tmp_path / "q.png")
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "q.png").read_bytes()
