"""Datasets of the field and of anybody: schemas, splits, what identifies them, what goes wrong."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import requests
from datasets.exceptions import DatasetNotFoundError
from field_data import FIELD
from huggingface_hub import errors
from PIL import Image

from arena.data.fingerprint import folder_fingerprint
from arena.data.fixtures import FIXTURES, picture, table, write
from arena.data.hub import base as hub_base
from arena.data.multiple_choice import split_options
from arena.data.pictures import decode as decoding
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, UsageError
from arena.plugins.registry import Registry
from arena.score.answers import CONVENTIONS
from arena.score.measures import MEASURES


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keeps what `datasets` makes of the fixtures out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {name: write(name, root / name) for name in FIELD}


def dataset(name: str, **config: Any) -> Any:
    return Registry().create("dataset", name, config)


def rows(samples: tuple[Sample, ...]) -> set[str]:
    return {s.id for s in samples}


@pytest.mark.parametrize("name", FIELD)
def test_a_published_row_becomes_a_sample(name: str, data: dict[str, Path]) -> None:
    field = FIELD[name]
    made = dataset(name, source=str(data[name]))
    assert dataset(name).config.source == field.hub and dataset(name).config.fingerprint == ""
    assert (made.convention, made.measures) == (field.convention, field.measures)
    assert made.convention in CONVENTIONS and set(made.measures) <= set(MEASURES)
    splits = made.load(6, 2, 4, seed=1)
    first = next(iter(FIXTURES[name].splits))
    wanted = f"{name.replace('-', '')}-{first}-000001"
    seeds = (made.load(6, 2, 4, seed) for seed in range(20))
    sample = next(s for split in seeds for s in (*split.train, *split.auxiliary, *split.test) if s.id == wanted)
    assert (sample.question, sample.answer) == (field.question, field.answer)
    assert (sample.aliases, sample.choices) == (field.aliases, field.choices)
    assert sample.image.tobytes() == (picture(1, "1").convert("L") if name == "docvqa" else picture(1)).tobytes()
    assert all(CONVENTIONS[made.convention](s.answer, s) for s in splits.train)


@pytest.mark.parametrize("name", FIELD)
def test_parts_are_disjoint_and_come_from_the_official_splits(name: str, data: dict[str, Path]) -> None:
    made = dataset(name, source=str(data[name]))
    splits = made.load(5, 2, 4, seed=3)
    parts = (splits.train, splits.auxiliary, splits.test)
    assert [len(part) for part in parts] == [5, 2, 4]
    assert len(rows(sum(parts, ()))) == len({s.image.tobytes() for s in sum(parts, ())}) == 11
    training, test = FIELD[name].drawn
    assert all(f"-{training}-" in s.id for s in (*splits.train, *splits.auxiliary))
    assert all(f"-{test}-" in s.id for s in splits.test)
    again, other = made.load(5, 2, 4, seed=3), made.load(5, 2, 4, seed=4)
    assert [digest(p) for p in (again.train, again.auxiliary, again.test)] == [digest(p) for p in parts]
    assert rows(other.train) != rows(splits.train) and rows(other.test) != rows(splits.test)
    # Neither the test set nor what is released depends on how much else is drawn.
    assert rows(made.load(3, 0, 4, seed=3).test) == rows(splits.test)
    assert digest(made.load(5, 0, 4, seed=3).train) == digest(splits.train)


@pytest.mark.parametrize("name", FIELD)
def test_no_more_than_there_are(name: str, data: dict[str, Path]) -> None:
    made = dataset(name, source=str(data[name]))
    training, test = FIELD[name].drawn
    size = FIXTURES[name].splits[training]
    with pytest.raises(UsageError, match=rf"split '{training}' has {size} rows.*ask for fewer"):
        made.load(5, 9, 2, seed=0)
    with pytest.raises(UsageError, match=rf"split '{test}' has .* rows: 40 test samples are more than"):
        made.load(2, 0, 40, seed=0)


def test_rows_without_picture_do_not_count(data: dict[str, Path]) -> None:
    made = dataset("scienceqa", source=str(data["scienceqa"]))
    splits = made.load(10, 2, 6, seed=0)
    numbers = [int(s.id.rsplit("-", 1)[1]) for s in (*splits.train, *splits.auxiliary)]
    assert sorted(numbers) == [n for n in range(18) if n % 3]
    with pytest.raises(UsageError, match=r"18 rows, of which 10 training samples are drawn, . are without picture"):
        made.load(10, 3, 6, seed=0)


def test_questions_about_one_picture_stay_in_one_part(tmp_path: Path) -> None:
    shared = table("realworldqa", range(24)).map(lambda row, n: {"image": picture(n // 3)}, with_indices=True)
    (tmp_path / "data").mkdir()
    shared.to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    made = dataset("realworldqa", source=str(tmp_path))
    for seed in range(5):
        splits = made.load(3, 2, 3, seed)
        shown = [{s.image.tobytes() for s in part} for part in (splits.train, splits.auxiliary, splits.test)]
        assert not shown[0] & shown[1] and not shown[0] & shown[2] and not shown[1] & shown[2]
    with pytest.raises(UsageError, match=r"has 24 rows, of which 6 test samples are drawn, \d+ are without picture or"):
        made.load(18, 0, 6, 0)


def test_a_copy_without_training_split_is_divided(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    (folder / "data").mkdir(parents=True)
    table("docvqa", range(12)).to_parquet(folder / "data" / "validation-00000-of-00001.parquet")
    with pytest.raises(ArenaError, match=r"split 'train', cannot be read.*with training_split"):
        dataset("docvqa", source=str(folder)).load(4, 0, 4, 0)
    splits = dataset("docvqa", source=str(folder), training_split="validation").load(4, 2, 6, 0)
    assert len(rows((*splits.train, *splits.auxiliary, *splits.test))) == 12


def test_a_saved_data_set_is_the_same_data(tmp_path: Path, data: dict[str, Path]) -> None:
    saved = {split: table("vqa-rad", numbers) for split, numbers in (("train", range(12)), ("test", range(12, 18)))}
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path))
    one, two = (dataset("vqa-rad", source=str(path)).load(5, 2, 3, 0) for path in (tmp_path, data["vqa-rad"]))
    assert digest(one.train) == digest(two.train) and digest(one.test) == digest(two.test)
    with pytest.raises(ArenaError, match=r"split 'dev', cannot be read: it has the splits train, test"):
        dataset("vqa-rad", source=str(tmp_path), training_split="dev").load(1, 0, 0, 0)


def test_one_saved_split_is_not_every_split(tmp_path: Path) -> None:
    table("vqa-rad", range(12)).save_to_disk(str(tmp_path))
    with pytest.raises(ArenaError, match=r"split 'test', cannot be read: it has the splits train"):
        dataset("vqa-rad", source=str(tmp_path)).load(4, 0, 4, 0)
    splits = dataset("vqa-rad", source=str(tmp_path), evaluation_split="train").load(6, 2, 4, 0)
    assert len(rows((*splits.train, *splits.auxiliary, *splits.test))) == 12


def test_an_empty_answer_is_an_annotators_too(tmp_path: Path) -> None:
    """By hand: 3 of 10 agree, so (3 * 2/3 + 7 * 1) / 10."""
    good = table("textvqa", range(1))
    row = {**good.cast_column("image", datasets.Image(decode=False))[0], "answers": [*"aaabbb", "", " ", "", ""]}
    saved = datasets.Dataset.from_list([row], features=good.features)
    datasets.DatasetDict({"validation": saved, "train": saved}).save_to_disk(str(tmp_path))
    [sample] = dataset("textvqa", source=str(tmp_path)).load(0, 0, 1, 0).test
    assert sample.answer == "a" and len(sample.aliases) == 9
    assert MEASURES["vqa-accuracy"]("a", sample) == pytest.approx(0.9)
    assert MEASURES["vqa-accuracy"]("", sample) == 0 and not CONVENTIONS["normalized"]("", sample)


def test_changed_files_behind_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file = tmp_path / "real" / "a.txt"
    file.write_text("yes", encoding="utf-8")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "source")  # endless, if one went on
    (tmp_path / "source" / "nowhere").symlink_to("nowhere")  # leads to itself
    before = folder_fingerprint(tmp_path / "source")
    assert before != folder_fingerprint(tmp_path / "nothing")
    file.write_text("banana", encoding="utf-8")
    assert folder_fingerprint(tmp_path / "source") != before


def test_columns_and_instruction_are_settings(data: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        renamed = table("vqa-rad", range(4)).rename_columns({"question": "ask", "image": "scan"})
        renamed.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    columns = {"question": "ask", "image": "scan"}
    made = dataset("vqa-rad", source=str(tmp_path), columns=columns, instruction="")
    assert {s.question for s in made.load(4, 0, 0, 0).train} == {f"is lesion {n} shown?" for n in range(4)}
    with pytest.raises(UsageError, match=r"column 'image' \(image\) is missing; there are scan, ask, answer: map one"):
        dataset("vqa-rad", source=str(tmp_path)).load(1, 0, 0, 0)
    with pytest.raises(UsageError, match=r"has no field 'choices': map image, question, answer"):
        dataset("vqa-rad", source=str(tmp_path), columns={"choices": "ask"}).load(1, 0, 0, 0)
    with pytest.raises(UsageError, match=r"column 'ask' \(image\) holds no pictures"):
        dataset("vqa-rad", source=str(tmp_path), columns={"question": "ask", "image": "ask"}).load(1, 0, 0, 0)


BAD_ROWS = {
    "no answers": ("docvqa", {"answers": []}, r"row 0: answers is \[\] where a list of texts is needed: take a split"),
    "no question": ("vqa-rad", {"question": " "}, r"row 0: question is ' ' where a text is needed"),
    "no letter": ("mmstar", {"answer": "cat"}, r"row 0: the answer 'CAT' is no option's letter"),
    "letter beyond": ("mmstar", {"answer": "E"}, r"row 0: the answer 'E' is beyond the 4 options"),
    "choice beyond": ("scienceqa", {"answer": 3, "image": picture(0)}, r"answer 3 is not the number of one of 3"),
    "empty choice": (
        "scienceqa",
        {"choices": ["", "oak"], "image": picture(0)},
        r"choices \['', 'oak'\] need a text each",
    ),
    "no picture": ("vqa-rad", {"image": None}, r"row 0: it has no picture"),
    "damaged picture": (
        "vqa-rad",
        {"image": {"bytes": b"\x89PNG\r\n", "path": None}},
        r"row 0: the picture is damaged",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named(case: str, tmp_path: Path) -> None:
    name, change, message = BAD_ROWS[case]
    good = table(name, range(1))
    row = {**good.cast_column("image", datasets.Image(decode=False))[0], **change}
    training, test = FIELD[name].drawn
    bad = datasets.Dataset.from_list([row], features=good.features)
    datasets.DatasetDict({training: bad, test: bad}).save_to_disk(str(tmp_path))
    with pytest.raises(ArenaError, match=message):
        dataset(name, source=str(tmp_path)).load(0, 0, 1, 0)


def test_a_huge_picture_is_refused_before_it_is_decoded(data: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(ArenaError, match=r"row \d+: the picture is too large to decode safely \(64 x 48 pixels"):
        dataset("vqa-rad", source=str(data["vqa-rad"])).load(1, 0, 0, 0)


MODES = {"L": "L", "1": "L", "P": "RGB", "CMYK": "RGB", "RGBA": "RGBA", "LA": "LA"}


def test_pictures_get_modes_that_a_release_can_have(tmp_path: Path) -> None:
    encoded = []
    for mode in MODES:
        file = io.BytesIO()
        picture(1).convert("L" if mode == "LA" else "RGB").convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    good = table("vqa-rad", range(len(MODES)))
    changed = datasets.Dataset.from_dict({**good.select_columns(["question", "answer"]).to_dict(), "image": encoded})
    datasets.DatasetDict({"train": changed.cast_column("image", datasets.Image())}).save_to_disk(str(tmp_path))
    train = dataset("vqa-rad", source=str(tmp_path)).load(len(MODES), 0, 0, 0).train
    modes = [s.image.mode for s in sorted(train, key=lambda s: s.id)]
    assert modes == list(MODES.values())


def response(status: int) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.request = requests.Request("GET", "https://huggingface.co/datasets/who/what").prepare()
    return made


def hub_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub says no")
    return error


NOWHERE = r"'who/what' is neither a folder nor in the local cache.*hf download --repo-type dataset who/what"
REFUSED = {
    DatasetNotFoundError: r"'who/what' is neither a folder nor a data set on the hub.*check the spelling",
    errors.RepositoryNotFoundError: r"'who/what' is neither a folder nor a data set on the hub.*check the spelling",
    errors.GatedRepoError: r"'who/what' is gated: accept its terms.*hf auth login",
    errors.RevisionNotFoundError: r"'who/what' has no revision 'v9'",
    errors.OfflineModeIsEnabled: NOWHERE,
    ConnectionError: NOWHERE,
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_the_hub_refuses_has_a_remedy(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        asked.append((args, kwargs))
        assert "trust_remote_code" not in kwargs
        if issubclass(kind, DatasetNotFoundError | ConnectionError):
            raise hub_error(kind)
        raise DatasetNotFoundError("it is not there") from hub_error(kind)

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ArenaError, match=REFUSED[kind]):
        dataset("textvqa", source="who/what", revision="v9", subset="big").load(1, 0, 0, 0)
    assert asked == [(("who/what", "big"), {"split": "train", "revision": "v9"})]


def test_what_the_data_are_is_no_setting(data: dict[str, Path], tmp_path: Path) -> None:
    """The place is not part of what a cell is, the content is."""
    local = shutil.copytree(data["vqa-rad"], tmp_path / "local")
    one, two = dataset("vqa-rad", source=str(data["vqa-rad"])), dataset("vqa-rad", source=str(local))
    found = one.fingerprint()
    assert len(found) == 64 and two.fingerprint() == found
    assert one.config.identity() == two.config.identity() == dataset("vqa-rad").config.identity()
    pinned = dataset("vqa-rad", source=str(local), fingerprint=found)
    assert pinned.fingerprint() == found and pinned.config.identity() == one.config.identity()
    table("vqa-rad", range(1, 13)).to_parquet(local / "data" / "train-00000-of-00001.parquet")
    assert two.fingerprint() != found
    with pytest.raises(UsageError, match=r"not those of fingerprint .*restore them, or leave out the fingerprint"):
        pinned.fingerprint()


COMMITS = {"main": "a" * 40, "v2": "b" * 40}


def test_a_hub_id_is_known_by_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(id: str, revision: str, kind: str) -> str:
        assert kind == "dataset"
        return COMMITS[revision]

    monkeypatch.setattr(hub_base, "resolve", resolve)
    assert dataset("vqa-rad").fingerprint() == f"flaviagiammarino/vqa-rad@{'a' * 40}"
    assert dataset("vqa-rad", source="who/what", revision="v2").fingerprint() == f"who/what@{'b' * 40}"
    pinned = dataset("vqa-rad", revision="v2", fingerprint=f"flaviagiammarino/vqa-rad@{'a' * 40}")
    with pytest.raises(UsageError, match="restore them, or leave out the fingerprint"):
        pinned.fingerprint()


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "data/._train-00000-of-00001.parquet", ".git/HEAD"])
def test_a_folder_that_was_looked_at_holds_the_same_data(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(data["vqa-rad"], tmp_path / "local")
    made = dataset("vqa-rad", source=str(folder))
    before = made.fingerprint()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"litter")
    assert made.fingerprint() == before
    (folder / "data" / "notes.txt").write_bytes(b"data, as far as anybody knows")
    assert made.fingerprint() != before


@pytest.mark.parametrize("name", FIELD)
def test_a_dry_run_needs_the_folder_alone(name: str, tmp_path: Path) -> None:
    asked = {"subset": "DocVQA", "revision": "v2", "training_split": "x", "columns": {"question": "ask"}}
    made = dataset(name, **asked, fingerprint="f" * 64, instruction="Say it.")
    settings = made.dry_run(tmp_path / "new", rows=30)
    small = dataset(name, **{**made.config.model_dump(), **settings})
    splits = small.load(6, 3, 8, seed=0)
    assert [len(part) for part in (splits.train, splits.auxiliary, splits.test)] == [6, 3, 8]
    assert splits.train[0].question.endswith("\nSay it.") and len(small.fingerprint()) == 64


def test_datasets_that_are_here_have_no_dry_run(tmp_path: Path) -> None:
    for made in (dataset("glyphs"), dataset("digits"), dataset("imagefolder", source=str(tmp_path))):
        assert made.dry_run(tmp_path / "new", rows=30) is None
    assert not (tmp_path / "new").exists()


def test_measures_are_asked_for_where_a_dataset_has_them(tmp_path: Path) -> None:
    assert dataset("textvqa").measures == ("vqa-accuracy",) and dataset("docvqa").measures == ("anls",)
    assert dataset("glyphs").measures == dataset("imagefolder", source=str(tmp_path)).measures == ()


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Which?\nOptions: A: one, B: two", "Which?", ("one", "two")),
        ("Which?\nOptions: A: 1,000, B: 2, 3, C: B", "Which?", ("1,000", "2, 3", "B")),
        ("Which?\nChoices:\n(A) one\n(B) two\n(C) three", "Which?", ("one", "two", "three")),
        ("Which?\nOptions: A. a B. b", "Which?", ("a", "b")),
        ("Which options: A or B?", "Which options: A or B?", ()),
        ("Which? options: a: cat, b: dog", "Which? options: a: cat, b: dog", ()),
        ("Which?\nOptions: A: one", "Which?\nOptions: A: one", ()),
        ("Which?", "Which?", ()),
    ],
)
def test_options_are_split_off(text: str, question: str, choices: tuple[str, ...]) -> None:
    assert split_options(text) == (question, choices)


def own_folder(folder: Path, numbers: range, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as metadata:
        for n in numbers:
            picture(n // 2).save(folder / f"{n}.png")
            row = {"file_name": f"{n}.png", "ask": f"what is {n}?", "answer": f"thing {n}", **changes}
            metadata.write(json.dumps(row) + "\n")
    return folder


def test_anybodys_folder_is_divided(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own", range(20))
    made = dataset("imagefolder", source=str(folder), columns={"question": "ask"})
    assert made.convention == "normalized"
    splits = made.load(4, 2, 4, seed=2)
    shown = [{s.image.tobytes() for s in part} for part in (splits.train, splits.auxiliary, splits.test)]
    assert not shown[0] & shown[1] and not shown[0] & shown[2] and not shown[1] & shown[2]
    assert splits.train[0].question.startswith("what is ")
    with pytest.raises(UsageError, match=r"own has 20 rows.*ask for fewer"):
        made.load(20, 0, 4, 2)


def test_anybodys_folder_is_what_is_read_of_it(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own", range(4))
    made = dataset("imagefolder", source=str(folder), columns={"question": "ask"})
    before, read = made.fingerprint(), digest(made.load(2, 0, 2, 0).train)
    for name in (".DS_Store", "Thumbs.db", "._0.png", "notes.md"):
        (folder / name).write_bytes(b"litter")
    assert made.fingerprint() == before and digest(made.load(2, 0, 2, 0).train) == read
    picture(9).save(folder / "0.png")
    assert made.fingerprint() != before


def test_anybodys_folder_with_splits_of_its_own(tmp_path: Path) -> None:
    own_folder(tmp_path / "own" / "train", range(10))
    own_folder(tmp_path / "own" / "test", range(4))
    made = dataset("imagefolder", source=str(tmp_path / "own"), columns={"question": "ask"}, scoring="exact")
    splits = made.load(5, 2, 4, seed=0)
    assert made.convention == "exact" and dataset("imagefolder", source=str(tmp_path)).convention == "normalized"
    assert all(s.id.startswith("train/") for s in (*splits.train, *splits.auxiliary))
    assert rows(splits.test) == {f"test/{n}.png" for n in range(4)}


def test_anybodys_folder_has_its_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"setting 'source' must be given"):
        dataset("imagefolder")
    nowhere = dataset("imagefolder", source=str(tmp_path / "nowhere"))
    for ask in (nowhere.fingerprint, lambda: nowhere.load(1, 0, 1, 0)):
        with pytest.raises(UsageError, match=r"nowhere is not a folder: name one that holds pictures"):
            ask()
    folder = own_folder(tmp_path / "own", range(4))
    with pytest.raises(ArenaError, match=r"column 'question' \(question\) is missing; the row has file_name, ask"):
        dataset("imagefolder", source=str(folder)).load(1, 0, 1, 0)
    columns = {"question": "ask"}
    with pytest.raises(ArenaError, match=r"'0.png' has the answer 'thing 0': scoring by choice needs the letter"):
        dataset("imagefolder", source=str(folder), columns=columns, scoring="choice").load(1, 0, 1, 0)
    Image.new("I;16", (3, 3), 9).save(folder / "0.png")
    with pytest.raises(ArenaError, match=r"'0.png' has values of 16 bits, and which of them are black and white only"):
        dataset("imagefolder", source=str(folder), columns=columns).load(3, 0, 1, 0)


def test_a_letter_beyond_the_choices_is_found_at_once(tmp_path: Path) -> None:
    lines = []
    for n, answer in enumerate("aC"):
        picture(n).save(tmp_path / f"{n}.png")
        row = {"file_name": f"{n}.png", "question": "which?", "answer": answer, "choices": ["cat", "dog"]}
        lines.append(json.dumps(row))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ArenaError, match=r"'1.png' has the answer 'C': .* one of A to B"):
        dataset("imagefolder", source=str(tmp_path), scoring="choice").load(1, 0, 1, 0)
