"""`arena protect`: names kept, input untouched, budget on the files, honest report, resumption, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_here
from owner_folder import ANSWERS, FILES, QUESTIONS, QUICK, load_checkpoint, tree, write_checkpoint, write_owner_folder
from PIL import Image

import arena.owner.publishing
from arena.budget import Budget, colours
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, BudgetError, UsageError
from arena.owner.originals import read_originals
from arena.owner.protect import protect_folder
from arena.owner.report import inserted_span, read_report, rounds_table
from arena.release import read_imagefolder, read_release, write_release
from arena.score.stealth import stealth

ROOT = Path(__file__).parents[3]
RELEASED = ("a b/übung.png", "c/photo.v2.png", "c/deep/x.png", "grey.png", "z.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_owner_folder(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory, source: Path, checkpoint: Path) -> Path:
    out = tmp_path_factory.mktemp("crafted") / "out"
    budget = Budget(image=4, text=3)
    protect_folder(source, out, "mmguard-bph", [f"llava={checkpoint}"], config=QUICK, budget=budget, seed=2)
    return out


def test_the_release_loads_with_datasets_under_the_original_names(source: Path, tmp_path: Path) -> None:
    import datasets

    before = tree(source)
    report = protect_folder(source, tmp_path / "out", "random", seed=1)
    assert tree(source) == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["data", "report.html", "report.json"]
    table = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out" / "data"), split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = {row["id"]: row for row in table}
    assert set(rows) == set(FILES)
    for file, name, question, answer in zip(FILES, RELEASED, QUESTIONS, ANSWERS, strict=True):
        assert (rows[file]["question"], rows[file]["answer"]) == (question, answer)
        with Image.open(tmp_path / "out" / "data" / name) as stored, Image.open(source / file) as original:
            assert stored.format == "PNG"
            assert np.array_equal(np.asarray(rows[file]["image"]), np.asarray(stored))
            change = np.abs(colours(stored).astype(int) - colours(original))
            assert 0 < change.max() <= 8
    assert [s.source_file for s in report.samples] == list(FILES)
    assert [s.file for s in report.samples] == list(RELEASED)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2 of 5 pictures have a new file ending for that" in page and "c/photo.v2.jpg" in page


def test_the_report_says_what_is_on_disk(source: Path, checkpoint: Path, crafted: Path) -> None:
    report = read_report(crafted)
    originals, released = read_imagefolder(source), read_release(crafted / "data")
    lvlm = load_checkpoint(checkpoint)
    assert report.stealth == stealth(originals, released, lvlm.perplexities)
    changes = [
        np.abs(colours(b.image).astype(int) - colours(a.image)).max() for a, b in zip(originals, released, strict=True)
    ]
    assert report.measured.image == max(changes) == 1  # one step of 1/255
    added = [len(b.question.split()) - len(a.question.split()) for a, b in zip(originals, released, strict=True)]
    assert report.measured.words == max(added) == 3
    sizes = [[len(lvlm.tokenizer(s.question)["input_ids"]) for s in side] for side in (originals, released)]
    assert report.measured.tokens == max(b - a for a, b in zip(*sizes, strict=True)) <= 3
    for about, original, sample in zip(report.samples, originals, released, strict=True):
        assert about.trigger is not None
        start, stop = about.trigger
        assert sample.question[:start].rstrip() + sample.question[stop:] == original.question
        assert len(sample.question[start:stop].split()) == 3
        assert (about.clean, about.released) == (digest([original]), digest([sample]))
    assert [entry["round"] for entry in report.log] == [1]
    assert report.diagnostics["loss"] == report.log[0]["loss"]
    assert report.diagnostics["trigger-violations"] == 0
    assert report.diagnostics["trigger-measured"] >= report.diagnostics["trigger-bound"]
    assert report.seconds > 0 and report.environment["packages"]["torch"]
    assert not report.resumed


def test_the_page_escapes_shows_and_is_honest(crafted: Path) -> None:
    page = (crafted / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count('src="data:image/png;base64,') == 12
    assert 'src="http' not in page and "<link" not in page
    assert "not a guarantee" in page and "<b>A bound on attention is not a bound on accuracy</b>" in page
    report = read_report(crafted)
    names, rows = rounds_table(report.log)
    for name, value in zip(names, rows[0], strict=True):
        assert f">{value}</td>" in page, name
    assert f"{report.log[0]['surrogates'][0]['train']:.6g}" in rows[0]
    for shown in ("psnr", "ciede2000", "bleu", "answer_leak", "perplexity_ratio"):
        assert f"{report.stealth[shown]:.4g}" in page


def test_an_interrupted_run_goes_on_to_the_same_bytes(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = {**QUICK, "rounds": 2}

    def run(out: Path, **options: object) -> object:
        return protect_folder(source, out, "mmguard-bph", [f"llava={checkpoint}"], config=config, **options)  # type: ignore[arg-type]

    run(tmp_path / "whole")
    out, notes = tmp_path / "parts", []

    def interrupt(done: float, note: str) -> None:
        if note.startswith("round 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, progress=interrupt)
    assert [p.name for p in out.iterdir()] == [".work"]
    with pytest.raises(UsageError, match=r"not empty.*--resume goes on"):
        run(out)
    with pytest.raises(UsageError, match=r"another request \(seed differ"):
        run(out, resume=True, seed=9)
    run(out, resume=True, progress=lambda done, note: notes.append(note))
    assert any(note.startswith("round 2") for note in notes) and not any(note.startswith("round 1") for note in notes)
    assert tree(out / "data") == tree(tmp_path / "whole" / "data")
    assert not (out / ".work").exists()
    assert read_report(out).resumed and not read_report(tmp_path / "whole").resumed
    assert read_report(out).log == read_report(tmp_path / "whole").log

    # a finished run has nothing left to do
    before, notes[:] = tree(out), []
    assert run(out, resume=True, progress=lambda done, note: notes.append(note)) == read_report(out)
    assert tree(out) == before and not any(note.startswith("round") for note in notes)


def test_places_that_are_refused(source: Path, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep", encoding="utf-8")
    before = tree(source)
    for out, resume, says in (
        (used, False, r"not empty \('mine.txt' is in it\): name a new one"),
        (used, True, "holds no run of `arena protect`"),
        (used / "mine.txt", False, "is a file"),
        (source / "out", False, "lie in each other"),
        (source.parent, True, "lie in each other"),
    ):
        with pytest.raises(UsageError, match=says):
            protect_folder(source, out, "random", resume=resume)
    assert tree(used) == {"mine.txt": b"keep"} and tree(source) == before


@pytest.mark.parametrize(
    ("defense", "surrogates", "options", "says"),
    [
        ("mmguard-bph", [], {}, "needs a surrogate model: name one with --surrogate"),
        ("mmguard-bhp", [], {}, "did you mean 'mmguard-bph'"),
        ("random", ["tiny-lava"], {}, "did you mean 'tiny-llava'"),
        ("random", ["tiny-llava=x"], {}, "no setting 'checkpoint'"),
        ("em", ["tiny-llava"], {"config": {"rounds": 0}}, "rounds = 0 is refused"),
        ("random", [], {"columns": {"question": "query"}}, r"column 'query' \(question\) is missing"),
        ("random", [], {"columns": {"picture": "x"}}, "no field 'picture'"),
        ("random", [], {"columns": {"image": "x"}}, "map no image column"),
        ("random", [], {"split": "test"}, "no split 'test'"),
    ],
)
def test_bad_requests(
    source: Path, tmp_path: Path, defense: str, surrogates: list[str], options: dict[str, object], says: str
) -> None:
    with pytest.raises(ArenaError, match=says):
        protect_folder(source, tmp_path / "out", defense, surrogates, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_names_that_would_collide_are_refused_before_crafting(tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    rows = []
    for name in ("x.png", "X.bmp"):
        Image.new("RGB", (8, 8)).save(folder / name)
        rows.append(json.dumps({"file_name": name, "question": "what?", "answer": "it"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ArenaError, match=r"'X\.bmp' would be released as 'X\.png', as 'x\.png' is: rename one"):
        protect_folder(folder, tmp_path / "out", "none", strict=True)
    assert not (tmp_path / "out").exists()
    report = protect_folder(folder, tmp_path / "out", "none")
    assert [s.file for s in report.samples] == ["x.png"] and [r.file for r in report.refused] == ["X.bmp"]


def _dataset(source: Path) -> object:
    import datasets

    rows = [
        {"picture": {"path": f, "bytes": (source / f).read_bytes()}, "query": q, "label": a, "number": i}
        for i, (f, q, a) in enumerate(zip(FILES, QUESTIONS, ANSWERS, strict=True))
    ]
    return datasets.Dataset.from_list(rows).cast_column("picture", datasets.Image())


COLUMNS = {"image": "picture", "question": "query", "answer": "label", "id": "number"}


def test_a_dataset_gives_the_same_samples_as_its_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = _dataset(source)
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"validation": table}).save_to_disk(tmp_path / "splits")
    wanted = [(s.image.mode, s.image.tobytes(), s.question, s.answer) for s in read_imagefolder(source)]
    for place, split in (("t.parquet", "train"), ("saved", "train"), ("splits", "validation")):
        originals = read_originals(str(tmp_path / place), COLUMNS, split)
        assert [(s.image.mode, s.image.tobytes(), s.question, s.answer) for s in originals.samples] == wanted
        assert [s.id for s in originals.samples] == ["0", "1", "2", "3", "4"]
        assert [Path(f).suffix for f in originals.files] == [Path(f).suffix for f in FILES]
        assert [Path(f).name for f in originals.files] == [Path(f).name for f in FILES]
    assert [s.question for s in read_originals(str(tmp_path / "saved"), COLUMNS, limit=2).samples] == [*QUESTIONS[:2]]
    report = protect_folder(tmp_path / "t.parquet", tmp_path / "out", "random", columns=COLUMNS, limit=3)
    assert [s.id for s in read_release(tmp_path / "out" / "data")] == ["0", "1", "2"] == [s.id for s in report.samples]
    with pytest.raises(UsageError, match=r"column 'question' \(question\) is missing; map one of its columns: picture"):
        read_originals(str(tmp_path / "saved"), {"image": "picture"})
    with pytest.raises(UsageError, match="no split 'train': name one of validation"):
        read_originals(str(tmp_path / "splits"), COLUMNS)
    with pytest.raises(UsageError, match=r"column 'number' \(image\) holds no pictures"):
        read_originals(str(tmp_path / "saved"), {**COLUMNS, "image": "number", "id": "label"})
    with pytest.raises(UsageError, match="does not exist"):
        read_originals(str(tmp_path / "nothing"))


def test_a_damaged_row_of_a_dataset_is_named(source: Path, tmp_path: Path) -> None:
    import datasets

    rows = [{"image": {"path": "a.png", "bytes": b"\x89PNG no"}, "question": "what?", "answer": "it"}]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "bad")
    with pytest.raises(ArenaError, match=r"bad, split 'train', row 0: 'a\.png' is damaged"):
        read_originals(str(tmp_path / "bad"))


UNUSABLE = {
    "empty picture": ({"path": None, "bytes": b""}, "it"),
    "answer of bytes": ({"path": "a.png", "bytes": b"x"}, b"it"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_row_of_a_dataset_is_named(case: str, tmp_path: Path) -> None:
    import datasets

    picture, answer = UNUSABLE[case]
    table = datasets.Dataset.from_list([{"image": picture, "question": "what?", "answer": answer}])
    table.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "bad")
    with pytest.raises(ArenaError, match=r"bad, split 'train', row 0, picture '.*', cannot be taken over"):
        read_originals(str(tmp_path / "bad"))


def test_a_column_of_texts_is_no_column_of_pictures(tmp_path: Path) -> None:
    """Else a row could name any file of the owner's."""
    import datasets

    rows = [{"image": "/etc/hostname", "question": "what?", "answer": "it"}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "texts")
    with pytest.raises(UsageError, match=r"column 'image' \(image\) holds no pictures"):
        read_originals(str(tmp_path / "texts"))


def test_names_of_a_dataset_that_lead_out_are_cut(tmp_path: Path, source: Path) -> None:
    import datasets

    content = (source / FILES[0]).read_bytes()
    rows = [{"image": {"path": p, "bytes": content}, "question": "what?", "answer": "it"} for p in ("../../x.png", "y")]
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    table.save_to_disk(tmp_path / "saved")
    assert read_originals(str(tmp_path / "saved")).files == ["x.png", "000001.png"]


def test_names_of_a_dataset_that_no_file_can_have_are_numbers(tmp_path: Path, source: Path) -> None:
    import datasets

    content = (source / FILES[0]).read_bytes()
    rows = [{"image": {"path": 300 * "x" + ".png", "bytes": content}, "question": "what?", "answer": "it"}]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    assert read_originals(str(tmp_path / "saved")).files == ["000000.png"]


def test_a_defense_beyond_its_budget_releases_nothing(tmp_path: Path, toys: Path) -> None:
    folder = tmp_path / "grey"
    write_release([Sample("g", Image.new("L", (8, 8), 100), "what number is it?", "one")], folder)
    with pytest.raises(BudgetError, match=r"\|delta\| = 30/255 > 8/255"):
        protect_folder(folder, tmp_path / "loud", "toy-loud")
    assert [p.name for p in (tmp_path / "loud").iterdir()] == [".work"]
    with pytest.raises(ArenaError, match="defense 'toy-raising': ValueError: the toy is broken"):
        protect_folder(folder, tmp_path / "raising", "toy-raising")
    with pytest.raises(UsageError, match="auxiliary samples, which only a suite can grant"):
        protect_folder(folder, tmp_path / "crafted", "toy-crafted", ["toy-model"])
    report = protect_folder(folder, tmp_path / "fixed", "toy-fixed", ["toy-model"])
    (released,) = read_release(tmp_path / "fixed" / "data")
    assert released.question == "what number is it? please"
    assert report.samples[0].trigger == (19, 25) and report.measured.tokens == 1
    assert report.stealth["perplexity_ratio"] == pytest.approx(25 / 18)


def test_answers_that_are_given_away_are_refused_or_told(tmp_path: Path) -> None:
    folder, free = tmp_path / "grey", Budget(forbid_answer_words=False)
    grey = [Sample(str(i), Image.new("L", (8, 8), 100), "what number is it?", "one") for i in range(2)]
    write_release(grey, folder)
    with pytest.raises(BudgetError, match=r"sample 0 .*: the word 'one' was inserted"):
        protect_folder(folder, tmp_path / "told", "answer-word")
    report = protect_folder(folder, tmp_path / "free", "answer-word", budget=free)
    assert report.stealth["answer_leak"] == 1.0 and not report.request.budget.forbid_answer_words
    page = (tmp_path / "free" / "report.html").read_text(encoding="utf-8")
    assert "In 100 % of the samples the inserted words hold the answer." in page
    protect_folder(folder, tmp_path / "plain", "none")
    assert "inserted words hold the answer." not in (tmp_path / "plain" / "report.html").read_text(encoding="utf-8")


def test_a_surrogate_with_weights_that_are_no_numbers_is_refused(source: Path, tmp_path: Path) -> None:
    lvlm = load_checkpoint(write_checkpoint(tmp_path / "model"))
    with torch.no_grad():
        lvlm.model.get_input_embeddings().weight[3, 1] = float("nan")
    lvlm.model.save_pretrained(tmp_path / "model")
    surrogates, config = [f"llava={tmp_path / 'model'}"], {"rounds": 1}
    with pytest.raises(ArenaError, match=r"surrogate 'llava': NaN or infinite weights in \d of its parameters"):
        protect_folder(source, tmp_path / "out", "em", surrogates, config=config)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".work"]


def test_a_name_that_no_release_can_have_is_refused_before_crafting(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    name = "x" * 253
    Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    row = {"file_name": name, "question": "what?", "answer": "it"}
    (folder / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ArenaError, match=r"x' would be released under a name of more than 255 bytes.*: rename it"):
        protect_folder(folder, tmp_path / "out", "none")


def test_a_report_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").symlink_to("/proc/self/mem")
    with pytest.raises(ArenaError, match=r"report\.json cannot be read \("):
        read_report(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "x" * 300):
        with pytest.raises(UsageError, match=r"cannot be used \("):
            read_report(tmp_path / name)


def test_nothing_of_a_sample_steers_the_page(tmp_path: Path) -> None:
    evil = "a\x1b]8;;http://x\x07\u202eb"
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "\u202egnp.jpg")
    row = {"file_name": "\u202egnp.jpg", "question": f"what {evil}?", "answer": evil, "id": evil}
    (folder / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    protect_folder(folder, tmp_path / "out", "random")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    assert "what a\\x1b]8;;http://x\\x07\\u202eb?" in page and "\\u202egnp.jpg" in page
    assert read_release(tmp_path / "out" / "data")[0].id == evil


def test_what_the_disk_holds_is_what_is_checked(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(samples: list[Sample], folder: Path, *how: object) -> None:
        write_release(samples, folder, *how)  # type: ignore[arg-type]
        Image.new("RGB", (48, 48)).save(folder / "a b" / "übung.png")

    monkeypatch.setattr(arena.owner.publishing, "write_release", torn)
    with pytest.raises(ArenaError, match="does not read back as it was written"):
        protect_folder(source, tmp_path / "out", "random")
    assert not (tmp_path / "out" / "data").exists() and not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("original", "released", "inserted"),
    [
        ("which clan?", "which clan? wor two", "wor two"),
        ("which clan?", "word gene which clan?", "word gene"),
        ("which clan?", "which old clan?", "old"),
        ("which clan?", "which clan now?", "now"),
        ("the the end", "the the the end", "the"),
        ("which clan?", "which clan?", None),
        ("which clan?", "what clan is?", None),
        ("a b c", "x a y b c", None),
    ],
)
def test_the_inserted_characters_are_found(original: str, released: str, inserted: str | None) -> None:
    span = inserted_span(original, released)
    assert (None if span is None else released[slice(*span)]) == inserted


def _arena(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-c", "from arena.cli.app import main; main()", *words]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)


def test_the_command(
    source: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = _arena(
        *(tmp_path, "protect", str(source), "--defense", "mmguard-text", "--surrogate", f"llava={checkpoint}"),
        *("--out", "out", "--config", "rounds=1", "--config", "candidates=2", "--budget-text", "2", "--limit", "2"),
    )
    assert ran.returncode == 0, ran.stderr
    report = read_report(tmp_path / "out")
    assert "2 samples protected with mmguard-text" in ran.stdout and "out/data" in ran.stdout
    assert "not a guarantee" in ran.stdout and "no picture changed" in ran.stdout
    assert report.request.defense["config"]["candidates"] == 2 and report.measured.words == 2
    assert "answer leak" not in ran.stdout
    monkeypatch.chdir(tmp_path)
    protect = partial(run_here, monkeypatch, capsys, "protect", str(source))
    words = ("--defense", "answer-word", "--limit", "2")
    told = protect(*words, "--out", "told", "--allow-answer-words")
    assert "answer leak: the inserted words hold the answer in 100 % of the samples" in told.stdout, told.stderr
    again = protect("--defense", "none", "--out", "out")
    assert again.returncode == 2 and "is not empty" in again.stderr and "Traceback" not in again.stderr
    wrong = protect("--defense", "none", "--out", "o", "--question-column", "query")
    assert wrong.returncode == 1 and "column 'query' (question) is missing" in wrong.stderr
    bad = protect("--defense", "none", "--out", "o", "--config", "rounds")
    assert bad.returncode == 2 and "give KEY=VALUE" in bad.stderr
    low = protect("--defense", "none", "--out", "o", "--budget-image", "-1")
    assert low.returncode == 2 and "--budget-image -1" in low.stderr
