"""Folders that somebody protected: who belongs to whom, what does not match, and what of it trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from arena.budget import Budget
from arena.controls import CONTROLS
from arena.data.imagefolder import ImageFolder
from arena.data.pairs import paired
from arena.data.sample import Sample
from arena.errors import ArenaError, UsageError
from arena.owner.protect import protect_folder
from arena.plugins.base import DefenderWorld, Draft
from arena.plugins.registry import Registry
from arena.stress.folder import dataset_settings, export, read_protected, sizes
from arena.stress.settings import Settings
from arena.stress.target import entered, find_target
from arena.suites.shipped import find_suite

COUNT = 12


def write_folder(folder: Path, count: int = COUNT, shift: int = 0, suffix: str = "png", **changes: Any) -> Path:
    """Pictures of noise with questions; `shift` is added to each level, `changes` are rows' fields by number."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(40, 200, (9, 11, 3)).astype(np.uint8) + np.uint8(shift)
        row = {"file_name": f"{number:02d}.{suffix}", "question": f"what is number {number}?", "answer": f"n{number}"}
        Image.fromarray(pixels).save(folder / row["file_name"])
        rows.append({**row, **changes.get(f"row{number}", {})})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


def settings(target: Path, originals: Path | None, **given: Any) -> Settings:
    given.setdefault("budget", {"image": 8, "text": 5})
    return Settings(target=str(target), originals=None if originals is None else str(originals), **given)


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", suffix="bmp")


def test_a_release_of_any_tool_is_read(tmp_path: Path, originals: Path) -> None:
    released = write_folder(tmp_path / "released", shift=8, row3={"question": "what is number 3, please?"})
    found = read_protected(settings(released, originals))
    assert found.breaches == () and len(found.originals) == COUNT and found.budget == Budget(image=8)
    assert find_target(settings(released, originals), Registry()).name == "released"


def test_every_sample_beyond_the_budget_is_found(tmp_path: Path, originals: Path) -> None:
    many = {"row5": {"question": "one two three four five six number 5?"}}
    released = write_folder(tmp_path / "released", shift=9, **many)
    assert len(read_protected(settings(released, originals)).breaches) == COUNT
    found = read_protected(settings(released, originals, budget={"image": 9, "text": 3})).breaches
    assert len(found) == 1 and "sample 5 ('05.bmp')" in found[0] and "words inserted or changed > 3" in found[0]
    assert read_protected(settings(released, originals, budget={"image": 9, "text": 9})).breaches == ()


def test_answers_in_questions_are_found_unless_they_are_allowed(tmp_path: Path, originals: Path) -> None:
    released = write_folder(tmp_path / "released", row3={"question": "what is number 3? N3"})
    (breach,) = read_protected(settings(released, originals)).breaches
    assert "sample 3 ('03.bmp')" in breach and "the word 'n3' was inserted" in breach
    allowed = {"image": 8, "text": 5, "forbid_answer_words": False}
    assert read_protected(settings(released, originals, budget=allowed)).breaches == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"row2": {"answer": "other"}}, "'02.bmp' has the answer 'n2', and what was released 'other'"),
        ({"row2": {"file_name": "elsewhere.png"}}, "'02.bmp' has no released sample of its id or file name"),
        ({"row2": {"choices": ["a", "b"]}}, "has the choices (), and what was released ('a', 'b')"),
    ],
)
def test_others_than_the_originals_are_named(
    tmp_path: Path, originals: Path, change: dict[str, Any], says: str
) -> None:
    released = write_folder(tmp_path / "released", **change)
    if "file_name" in change["row2"]:
        (released / "02.png").rename(released / "elsewhere.png")
    with pytest.raises(UsageError) as refused:
        read_protected(settings(released, originals))
    assert says in str(refused.value) and f"1 of {COUNT} originals" in str(refused.value)
    assert "--originals" in str(refused.value)


def test_what_is_released_without_an_original_is_named(tmp_path: Path, originals: Path) -> None:
    released = write_folder(tmp_path / "released")
    shutil.copy(released / "00.png", released / "more.png")
    with (released / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"file_name": "more.png", "question": "what?", "answer": "it"}) + "\n")
    with pytest.raises(UsageError, match=r"1 released samples have no original in .*: 'more.png'\. Take them out"):
        read_protected(settings(released, originals))


def test_pictures_of_other_sizes_and_modes_are_named(tmp_path: Path, originals: Path) -> None:
    released = write_folder(tmp_path / "released")
    Image.new("RGB", (5, 5)).save(released / "00.png")
    Image.open(released / "01.png").convert("L").save(released / "01.png")
    with pytest.raises(UsageError) as refused:
        read_protected(settings(released, originals))
    assert "'00.bmp' has 11 x 9 pixels, and what was released 5 x 5" in str(refused.value)
    assert "'01.bmp' has mode RGB, and what was released L" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"originals": None}, "does not say what it was made from: name the folder of the originals with --originals"),
        ({"budget": None}, "does not say what its protection may change: say so with --budget-image"),
        ({"originals": "photos/of/nobody"}, "photos/of/nobody does not exist"),
        ({"target": "empty"}, "has no metadata.jsonl"),
    ],
)
def test_what_is_not_known_is_asked_for(
    tmp_path: Path, originals: Path, given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    released = write_folder(tmp_path / "released")
    with pytest.raises(UsageError) as refused:
        read_protected(settings(released, originals).model_copy(update=given))
    assert says in str(refused.value)


def test_what_protect_made_knows_its_originals_and_budget(tmp_path: Path, originals: Path) -> None:
    out = tmp_path / "out"
    protect_folder(originals, out, "random", budget=Budget(image=3, text=0))
    found = read_protected(settings(out, None, budget=None))
    assert found.budget == Budget(image=3, text=0) and found.breaches == () and not found.exported
    assert len(read_protected(settings(out, None, budget={"image": 2})).breaches) == COUNT
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["request"]["budget"].pop("forbid_answer_words")
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert not read_protected(settings(out, None, budget=None)).budget.forbid_answer_words, "made before the rule"
    moved = originals.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"the originals are no longer where .* says: name them by --originals"):
        read_protected(settings(out, None, budget=None))
    assert read_protected(settings(out, moved, budget=None)).breaches == ()
    write_folder(moved, suffix="bmp", row1={"question": "another?"})
    with pytest.raises(UsageError, match=r"'01\.bmp' is not the sample that was protected"):
        read_protected(settings(out, moved, budget=None))


def test_a_part_that_was_protected_is_all_that_is_used(tmp_path: Path, originals: Path) -> None:
    out = tmp_path / "out"
    protect_folder(originals, out, "random", limit=8)
    found = read_protected(settings(out, None, budget=None))
    assert found.exported and len(found.originals) == 8
    given = dataset_settings(found, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    export(found, tmp_path / "kept")
    export(found, tmp_path / "kept")
    assert given == dataset_settings(found, tmp_path / "kept")
    train, auxiliary, test = sizes(found, None, 0.0)
    assert (train, auxiliary, test) == (6, 0, 2)
    splits = ImageFolder(ImageFolder.Config(**given)).load(train, auxiliary, test, 0)
    drafts = list(defense(out / "data").protect(splits.train, DefenderWorld(Budget())))
    assert len(drafts) == 6


def test_folders_for_training_and_test(tmp_path: Path) -> None:
    both = tmp_path / "photos"
    write_folder(both / "train", suffix="bmp")
    write_folder(both / "test", count=5)
    released = write_folder(tmp_path / "released", shift=2)
    found = read_protected(settings(released, both))
    assert sizes(found, None, 0.0) == (COUNT, 0, 5) and sizes(found, 3, 0.2) == (10, 2, 3)
    with pytest.raises(UsageError, match="has 5 samples: --test 6 are more"):
        sizes(found, 6, 0.0)
    splits = ImageFolder(ImageFolder.Config(**found.settings)).load(COUNT, 0, 5, 0)
    drafts = list(defense(released).protect(splits.train, DefenderWorld(Budget())))
    for sample, draft in zip(splits.train, drafts, strict=True):
        assert (np.asarray(draft.image).astype(int) - np.asarray(sample.image) == 2).all()


def test_several_questions_about_a_picture_are_in_one_part(tmp_path: Path) -> None:
    def write(folder: Path, shift: int) -> Path:
        write_folder(folder, shift=shift)
        for number in range(1, COUNT, 3):  # pairs of the same picture
            (folder / f"{number:02d}.png").write_bytes((folder / f"{number - 1:02d}.png").read_bytes())
        return folder

    found = read_protected(settings(write(tmp_path / "released", 4), write(tmp_path / "photos", 0)))
    train, auxiliary, test = sizes(found, 4, 0.25)
    assert test == 4 and 0 < train + auxiliary <= COUNT - 4 and auxiliary == round(train / 4)
    splits = ImageFolder(ImageFolder.Config(**found.settings)).load(train, auxiliary, test, 0)
    assert len(splits.train) == train
    most, none, _ = sizes(found, 4, 0.0)
    assert none == 0 and len(ImageFolder(ImageFolder.Config(**found.settings)).load(most, 0, test, 0).train) == most
    with pytest.raises(UsageError):
        ImageFolder(ImageFolder.Config(**found.settings)).load(most + 1, 0, test, 0)


def test_too_few_originals(tmp_path: Path, originals: Path) -> None:
    found = read_protected(settings(write_folder(tmp_path / "released"), originals))
    with pytest.raises(UsageError, match="there are 12 originals, and 12 of them are to be held out"):
        sizes(found, 12, 0.0)


def test_a_folder_is_the_entry_and_its_originals_the_data(tmp_path: Path, originals: Path) -> None:
    target = find_target(settings(write_folder(tmp_path / "released"), originals, test=4), Registry())
    suite, entry, notes = entered(find_suite("core"), target, tmp_path / "kept")
    assert [use.id for use in suite.defenses] == [*CONTROLS, "released"] and suite.defenses[-1] is entry
    (data,) = suite.datasets
    assert (data.id, data.train, data.auxiliary, data.test) == ("imagefolder", 6, 1, 4)
    assert suite.budgets == (Budget(image=8, text=5),) and suite.attacks == find_suite("core").attacks
    assert notes == (
        "6 released samples train, 4 originals are held out to score on, 1 are the attackers' own clean data",
    )
    assert not (tmp_path / "kept").exists()


def test_a_defense_takes_the_place_of_the_others(tmp_path: Path) -> None:
    given = Settings.model_validate({"target": "em", "config": {"rounds": 3}, "budget": {"image": 4}})
    suite, entry, _ = entered(find_suite("stage"), find_target(given, Registry()), tmp_path)
    assert [use.label for use in suite.defenses] == ["none", "random", "em(rounds=3)"] and entry.label == "em(rounds=3)"
    assert suite.budgets == (Budget(image=4),) and suite.skip == find_suite("stage").skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"target": "emm"}, "there is no folder and no defense 'emm'; did you mean 'em'"),
        ({"target": "none"}, "'none' is no protection of its own"),
        (
            {"target": "released"},
            "'released' is no protection of its own: name another defense, or a folder as ./released",
        ),
        ({"target": "em", "originals": "photos"}, "target 'em' is a defense, and `originals` is about folders"),
        ({"target": ".", "config": {"a": 1}}, "is a folder, and settings are for defenses"),
    ],
)
def test_targets_that_are_none(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_target(Settings.model_validate(given), Registry())
    assert says in str(refused.value)


# The plugin


def defense(folder: Path, **config: Any) -> Any:
    return Registry().create("defense", "released", {"folder": str(folder), **config})


def test_the_plugin_hands_over_what_was_released(tmp_path: Path, originals: Path) -> None:
    released = write_folder(tmp_path / "released", shift=5, row3={"question": "what is number 3, please?"})
    samples = ImageFolder(ImageFolder.Config(source=str(originals))).load(COUNT, 0, 0, 0).train
    drafts: list[Draft] = list(defense(released).protect(samples, DefenderWorld(Budget())))
    for sample, draft in zip(samples, drafts, strict=True):
        assert (np.asarray(draft.image).astype(int) - np.asarray(sample.image) == 5).all()
        assert draft.question == ("what is number 3, please?" if sample.answer == "n3" else sample.question)
    (released / "07.png").unlink()
    (released / "metadata.jsonl").write_text(
        "".join(line for line in (released / "metadata.jsonl").open() if "07.png" not in line), encoding="utf-8"
    )
    with pytest.raises(ArenaError, match=r"has no released sample of '07\.bmp'"):
        list(defense(released).protect(samples, DefenderWorld(Budget())))


def test_the_plugin_is_known_by_the_bytes_of_its_folder(tmp_path: Path) -> None:
    one, other = write_folder(tmp_path / "one"), write_folder(tmp_path / "other")
    assert defense(one).fingerprint() == defense(other).fingerprint()
    assert defense(one).config.identity() == {"columns": {}}
    Image.new("RGB", (11, 9)).save(other / "00.png")
    assert defense(one).fingerprint() != defense(other).fingerprint()
    with pytest.raises(UsageError, match="is not a folder"):
        defense(tmp_path / "gone").fingerprint()


def test_pairs_go_by_id_then_by_file_name() -> None:
    def sample(id: str) -> Sample:
        return Sample(id, Image.new("L", (1, 1)), id, "a")

    def names(originals: list[str], released: list[str]) -> list[str | None]:
        found = paired([sample(id) for id in originals], [sample(id) for id in released])
        return [None if one is None else one.id for one in found]

    assert names(["a.jpg", "b/c.webp"], ["b/c.png", "a.jpg", "a.png"]) == ["a.jpg", "b/c.png"]
    assert names(["train/a.jpg", "7"], ["7", "a.png"]) == ["a.png", "7"]
    assert names(["a.jpg", "a.webp"], ["a.png"]) == [None, None]  # whose it is cannot be told
    assert names(["a.jpg"], ["a.png", "a.bmp"]) == [None]
