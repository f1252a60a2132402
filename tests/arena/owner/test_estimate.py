"""How long it takes is said before crafting starts, and how far it is in every phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from owner_folder import QUICK, tree, write_checkpoint, write_owner_folder
from PIL import Image
from tiny_models import tiny_random_llava
from typer.testing import CliRunner

from arena.budget import Budget
from arena.cli.app import app
from arena.data import shelf
from arena.errors import ArenaError, UsageError
from arena.owner.estimate import DryRun, Estimate, Prepared, estimate, passes
from arena.owner.phases import CRAFTING, MEASURING, WRITING, Phases
from arena.owner.protect import protect_folder
from arena.plugins.registry import Registry


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_owner_folder(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


def prepared(source: Path, out: Path, defense: str, *surrogates: str, **config: object) -> Prepared:
    found: list[Prepared] = []

    def before(one: Prepared) -> Estimate | None:
        found.append(one)
        raise DryRun

    with pytest.raises(DryRun):
        protect_folder(source, out, defense, surrogates, config=config, before=before)
    assert not out.exists()
    return found[0]


def test_the_work_of_the_defense_counts(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    name = f"llava={checkpoint}"
    little = estimate(prepared(source, tmp_path / "out", "mmguard-bph", name, **QUICK))
    much = estimate(prepared(source, tmp_path / "out", "mmguard-bph", name, **{**QUICK, "rounds": 500}))
    assert set(little.seconds) == {CRAFTING, WRITING, MEASURING} and little.known
    assert much.seconds[CRAFTING] > 20 * little.seconds[CRAFTING] > 0
    assert little.gradient > 0 and little.forward > 0
    assert little.total == sum(little.seconds.values())
    plain = estimate(prepared(source, tmp_path / "out", "random"))
    assert plain.known and plain.seconds[CRAFTING] < little.seconds[CRAFTING] and plain.gradient == 0


def test_views_count_where_a_part_is_left_out(tmp_path: Path) -> None:
    """Of these four pictures three are wider or taller than the square that the model sees."""
    lvlm, registry = tiny_random_llava(), Registry()
    sizes = ((48, 48), (96, 48), (48, 96), (48, 200))
    few, many = (
        passes(registry.create("defense", "em", {"views": views}), lvlm, sizes, Budget()).gradients
        for views in (False, True)
    )
    all_wide = passes(registry.create("defense", "em", {"views": True}), lvlm, sizes[1:], Budget()).gradients
    assert few < many < all_wide


def test_a_picture_that_the_surrogate_refuses_costs_nothing(tmp_path: Path) -> None:
    """Crafting refuses it by name; the estimate before it has to get there."""
    for name, sizes in (("some", ((40, 40), (500, 2))), ("none", ((500, 2),))):
        source = tmp_path / name
        source.mkdir()
        rows = []
        for number, size in enumerate(sizes):
            Image.new("RGB", size, "red").save(source / f"{number}.png")
            rows.append(json.dumps({"file_name": f"{number}.png", "question": "what?", "answer": "it"}))
        (source / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
        found = estimate(prepared(source, tmp_path / "out", "em", "tiny-qwen3-vl", views=True, rounds=1))
        assert (found.gradient > 0) == (name == "some")
    with pytest.raises(ArenaError, match=r"0\.png.* 500 x 2 pixels"):
        protect_folder(source, tmp_path / "out", "em", ["tiny-qwen3-vl"], before=estimate)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    before = tree(source)
    words = ["protect", str(source), "--defense", "mmguard-text", "--surrogate", f"llava={checkpoint}"]
    words += ["--out", str(tmp_path / "out"), "--dry-run", "--config", "rounds=1", "--config", "candidates=2"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert "5 samples, " in ran.stdout and "megapixels on average" in ran.stdout
    assert "on this machine: crafting" in ran.stdout
    assert not (tmp_path / "out").exists() and tree(source) == before
    few = CliRunner().invoke(app, [*words, "--verify"])
    assert isinstance(few.exception, UsageError)
    assert "--verify needs at least 40 samples, and there are 5" in str(few.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_keeps_few_decoded_pictures(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many photographs there are, and however much memory is free."""
    told: list[int] = []
    monkeypatch.setattr(shelf, "limit", told.append)
    words = ["protect", str(source), "--defense", "random", "--out", str(tmp_path / "out"), "--dry-run"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert told == [shelf.SMALL]


def test_phases_are_one_progress() -> None:
    told: list[tuple[float, str]] = []
    phases = Phases(lambda done, note: told.append((done, note)))
    phases(0.7, "reading")
    phases.expect({CRAFTING: 60.0, WRITING: 10.0, MEASURING: 30.0})
    phases.begin(CRAFTING, "crafting")
    phases(0.5, "half")
    phases.begin(WRITING, "writing")
    assert list(phases.each("ab", "files", 0, 0.5)) == ["a", "b"]
    phases.begin(MEASURING, "measuring")
    phases(2.0, "all")
    assert [round(done, 3) for done, _ in told] == [0, 0, 0.3, 0.6, 0.6, 0.625, 0.7, 1.0]
    assert told[4:6] == [(0.6, "files: 1 of 2"), (0.625, "files: 2 of 2")]
    assert phases.each("abc", "x")[1:] == "bc" and len(phases.each("abc", "x")) == 3
    Phases()(1.0, "nobody listens")


def test_every_phase_tells_how_far_it_is(source: Path, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    protect_folder(source, tmp_path / "out", "random", progress=lambda done, note: told.append((done, note)))
    shares = [done for done, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and 0.9 < shares[-1] <= 1
    notes = {note.partition(":")[0] for _, note in told}
    assert {
        "looking at the pictures",
        "handing over the samples",
        "writing the release",
        "checking the release",
    } <= notes
    assert {"measuring what shows", "measuring what was reached"} <= notes
    assert sum(note.startswith("measuring what shows: ") for _, note in told) == 5
