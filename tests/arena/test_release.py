"""Releases: rounding, checking, files, and reading folders that nobody vouches for."""

import json

import numpy as np
import pytest
from PIL import Image

from arena.budget import Budget
from arena.data.pictures import decode as decoding
from arena.data.sample import Sample, digest
from arena.errors import ArenaError, BudgetError, UsageError
from arena.plugins.base import Draft
from arena.release import build_release, read_imagefolder, read_release, write_release


def pixels(shape=(4, 6, 3), seed=0):
    return np.random.default_rng(seed).integers(20, 230, shape).astype(np.uint8)


@pytest.fixture
def samples():
    shapes = [(4, 6, 3), (7, 5), (3, 3, 4), (5, 4, 2)]
    return [
        Sample(
            f"s-{i}",
            Image.fromarray(pixels(shape, i)),
            f"was ist das? \u00e9\u4e2d\u2028{i}",
            "fox",
            ("a fox", "f\u00fcchse") if i else (),
            ("x", "y") if i == 2 else (),
        )
        for i, shape in enumerate(shapes)
    ]


def drafts(samples, change=0.0):
    return [Draft(np.asarray(s.image) / 255 + change, s.question) for s in samples]


def test_float_and_pil_drafts_round_to_the_same_bytes(samples):
    from_floats = build_release(samples, iter(drafts(samples)), Budget(image=0, text=0))
    from_images = build_release(samples, [Draft(s.image, s.question) for s in samples], Budget(image=0, text=0))
    assert digest(from_floats) == digest(from_images) == digest(samples)


def test_the_harness_rounds_to_the_nearest_level(samples):
    rgb = samples[:1]
    up = build_release(rgb, drafts(rgb, 8.4 / 255), Budget(image=8))
    assert (np.asarray(up[0].image).astype(int) - np.asarray(rgb[0].image) == 8).all()
    with pytest.raises(BudgetError, match=r"sample 0 \('s-0'\): \|delta\| = 9/255 > 8/255"):
        build_release(rgb, drafts(rgb, 8.6 / 255), Budget(image=8))


def test_a_channel_axis_of_one_is_a_grey_picture(samples):
    grey = samples[1:2]
    released = build_release(
        grey, [Draft(np.asarray(grey[0].image)[:, :, None] / 255, "was ist das? \u00e9\u4e2d\u20281")], Budget()
    )
    assert released[0].image.mode == "L"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda x: np.where(x == x.max(), np.nan, x), "NaN or infinite"),
        (lambda x: np.where(x == x.max(), np.inf, x), "NaN or infinite"),
        (lambda x: x + 1, "run from .* to .*: project them onto"),
        (lambda x: x - 0.9, "project them onto"),
        (lambda x: x[:-1], r"shape \(3, 6, 3\), the original \(4, 6, 3\)"),
        (lambda x: x[:, :, 0], "shape"),
        (lambda x: (x * 255).astype(np.uint8), "an array of uint8: return a PIL image or a float array"),
        (lambda x: x.tolist(), "a list: return"),
        (lambda x: Image.fromarray((x * 255).astype(np.uint8)).convert("P"), "palette"),
    ],
)
def test_a_bad_picture_names_the_sample(samples, spoil, problem):
    good = drafts(samples)
    good[0] = Draft(spoil(good[0].image), good[0].question)
    with pytest.raises(ArenaError, match=r"sample 0 \('s-0'\).*" + problem):
        build_release(samples, good, Budget())


def test_a_wrong_number_of_drafts_is_refused(samples):
    with pytest.raises(ArenaError, match=r"returned 2 drafts for 4 samples.*sample 2 \('s-2'\)"):
        build_release(samples, drafts(samples)[:2], Budget())
    with pytest.raises(ArenaError, match="more drafts than the 4 samples"):
        build_release(samples, drafts(samples) * 2, Budget())


@pytest.mark.parametrize("draft", [("picture", "text"), Draft(np.zeros((4, 6, 3)), 3)])
def test_what_is_no_draft_is_refused(samples, draft):
    with pytest.raises(ArenaError, match=r"sample 0 .*must return an arena\.plugins\.base\.Draft"):
        build_release(samples, [draft], Budget())


def test_a_release_survives_the_disk(samples, tmp_path):
    write_release(samples, tmp_path / "out")
    assert digest(read_release(tmp_path / "out")) == digest(samples)
    assert [s.choices for s in read_release(tmp_path / "out")] == [s.choices for s in samples]


def test_the_bytes_are_a_function_of_the_samples(samples, tmp_path):
    for name in "ab":
        write_release(samples, tmp_path / name)
    annotated = [s.with_content(s.image.copy(), s.question) for s in samples]
    for s in annotated:
        s.image.info["Comment"] = "made by em"
        s.image.info["dpi"] = (72, 72)
    write_release(annotated, tmp_path / "c")
    content = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc"]
    assert content[0] == content[1] == content[2]
    assert sorted(content[0]) == ["000000.png", "000001.png", "000002.png", "000003.png", "metadata.jsonl"]


def test_hugging_face_datasets_reads_a_release(samples, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    write_release(samples, tmp_path / "out")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = list(loaded["train"])
    assert [r["id"] for r in rows] == [s.id for s in samples]
    for row, s in zip(rows, samples, strict=True):
        assert (row["question"], row["answer"], tuple(row["aliases"])) == (s.question, s.answer, s.aliases)
        assert row["image"].mode == s.image.mode
        assert row["image"].tobytes() == s.image.tobytes()


def test_original_names_are_kept_as_png(samples, tmp_path):
    write_release(samples, tmp_path / "out", names=["a/cat.jpg", "b/cat.jpg", "dog.png", "owl"])
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "a/cat.png",
        "b/cat.png",
        "dog.png",
        "owl.png",
    ]
    assert digest(read_release(tmp_path / "out")) == digest(samples)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a.png", "A.jpg", "b", "c"], "'a.png' and 'A.jpg' would be one file"),
        (["../a.png", "b", "c", "d"], "leads out of the folder"),
        (["/a.png", "b", "c", "d"], "leads out of the folder"),
        (["C:\\a.png", "b", "c", "d"], "leads out of the folder"),
        (["a"], "1 names for 4 samples"),
    ],
)
def test_bad_names_are_refused_before_anything_is_written(samples, tmp_path, names, problem):
    with pytest.raises(UsageError, match=problem):
        write_release(samples, tmp_path / "out", names=names)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_not_overwritten(samples, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        write_release(samples, tmp_path)


def good_rows():
    return [
        {"file_name": f"{i}.png", "id": f"s-{i}", "question": "q?", "answer": "a", "aliases": [], "choices": []}
        for i in range(3)
    ]


def make_folder(path, rows, images=(0, 1, 2)):
    path.mkdir()
    for i in images:
        Image.fromarray(pixels(seed=i)).save(path / f"{i}.png")
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (path / "metadata.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def changed(**fields):
    rows = good_rows()
    rows[1] = {k: v for k, v in {**rows[1], **fields}.items() if v is not ...}
    return rows


@pytest.mark.parametrize(
    ("rows", "images", "problem"),
    [
        (
            good_rows()[:2],
            (0, 1, 2),
            r"the picture '2.png' has no row: add one, or remove the picture",
        ),
        (good_rows(), (0, 2), r"line 2: '1.png' is not in the folder: add the picture or remove"),
        ([*good_rows()[:1], b'{"file_name": "1.pn'], (0, 1, 2), r"line 2: not valid JSON .*torn line"),
        ([*good_rows()[:1], b"[1]"], (0, 1, 2), "line 2: each line must be a JSON object, this is a list"),
        ([*good_rows()[:1], b'{"question": "\xe9"}'], (0, 1, 2), "line 2: byte 0xe9 is not UTF-8: save"),
        (
            changed(question=...),
            (0, 1, 2),
            r"line 2: column 'question' \(question\) is missing; the row has file_name, id",
        ),
        (changed(answer=...), (0, 1, 2), "line 2: column 'answer'"),
        (changed(answer="  "), (0, 1, 2), "line 2: answer is missing or empty"),
        (changed(answer=None), (0, 1, 2), "line 2: answer is missing or empty"),
        (changed(answer=3), (0, 1, 2), "line 2: answer is a number, not a text: put it in quotes"),
        (changed(question="\ud800"), (0, 1, 2), "line 2: question has an unpaired surrogate"),
        (changed(aliases="fox"), (0, 1, 2), "line 2: aliases must be a JSON list"),
        (changed(choices=[1]), (0, 1, 2), "line 2: choices is a number"),
        (changed(id="s-0"), (0, 1, 2), "line 2: id 's-0' is already used in line 1"),
        (changed(file_name="../0.png"), (0, 1, 2), "line 2: file_name '../0.png' leads out of the folder"),
        (changed(file_name="x/../../0.png"), (0, 1, 2), "leads out of the folder"),
        (changed(file_name="/etc/passwd"), (0, 1, 2), "leads out of the folder"),
        ([], (), "has no rows"),
    ],
)
def test_bad_metadata_names_file_line_and_remedy(tmp_path, rows, images, problem):
    folder = make_folder(tmp_path / "in", rows, images)
    with pytest.raises(ArenaError, match=problem) as error:
        read_release(folder)
    assert str(folder / "metadata.jsonl") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_picture_is_named(tmp_path):
    folder = make_folder(tmp_path / "in", good_rows())
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArenaError, match=r"line 2: '1.png' is damaged or no picture"):
        read_release(folder)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ArenaError, match=r"line 2: '1.png' is damaged or no picture"):
        read_release(folder)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "in", good_rows())
    monkeypatch.setattr(decoding, "MAX_PIXELS", 4 * 6)
    assert len(read_release(folder)) == 3
    monkeypatch.setattr(decoding, "MAX_PIXELS", 4 * 6 - 1)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    with pytest.raises(ArenaError, match=r"line 1: '0.png' is too large to decode safely \(6 x 4 pixels"):
        read_release(folder)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_bomb_beyond_pillows_own_limits_is_the_same_error(tmp_path, side):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    folder = make_folder(tmp_path / "in", good_rows())
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    (folder / "1.png").write_bytes(bomb)
    with pytest.raises(ArenaError, match=r"line 2: '1.png' is too large to decode safely"):
        read_release(folder)


def test_palette_pictures_are_refused_with_the_remedy(tmp_path):
    folder = make_folder(tmp_path / "in", good_rows())
    Image.fromarray(pixels()).convert("P").save(folder / "1.png")
    with pytest.raises(ArenaError, match=r"line 2: '1.png' cannot be used: the image is a palette image"):
        read_release(folder)


def test_no_folder_and_no_metadata(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        read_release(tmp_path / "nowhere")
    make_folder(tmp_path / "train", good_rows())
    with pytest.raises(UsageError, match=r"has no metadata.*; its subfolders train have one"):
        read_release(tmp_path)


def test_a_users_own_folder_with_other_columns(tmp_path):
    rows = [
        {"file_name": "0.png", "prompt": "q?", "label": "a", "note": 7},
        {"file_name": "1.png", "prompt": "r?", "label": "b"},
    ]
    folder = make_folder(tmp_path / "in", rows, (0, 1))
    found = read_imagefolder(folder, {"question": "prompt", "answer": "label"})
    assert [(s.id, s.question, s.answer, s.aliases) for s in found] == [
        ("0.png", "q?", "a", ()),
        ("1.png", "r?", "b", ()),
    ]
    assert found[1].image.tobytes() == pixels(seed=1).tobytes()
    with pytest.raises(
        ArenaError, match=r"line 1: column 'question' \(question\) is missing; the row has file_name, prompt"
    ):
        read_imagefolder(folder)
    with pytest.raises(UsageError, match="no field 'qestion': map id, question"):
        read_imagefolder(folder, {"qestion": "prompt"})
    with pytest.raises(ArenaError, match=r"column 'others' \(aliases\) is missing"):
        read_imagefolder(folder, {"question": "prompt", "answer": "label", "aliases": "others"})


def test_a_csv_file_from_a_spreadsheet(tmp_path):
    folder = make_folder(tmp_path / "in", [], (0, 1))
    (folder / "metadata.jsonl").unlink()
    content = '\ufefffile_name,question,answer,aliases\r\n0.png,"who, me?",f\u00fc,\r\n1.png,r?,b,"[""c"", ""d""]"\r\n'
    (folder / "metadata.csv").write_text(content, encoding="utf-8", newline="")
    found = read_imagefolder(folder)
    assert [(s.question, s.answer, s.aliases) for s in found] == [("who, me?", "f\u00fc", ()), ("r?", "b", ("c", "d"))]
    for bad, problem in [
        ("file_name,question,answer\n0.png,q,a\n1.png,a, b, c\n", "line 3: the row has not as many fields"),
        ("file_name,question,answer\n0.png,q,a\n1.png,a\n", "line 3: the row has not as many fields"),
        ('file_name,question,answer\n0.png,q,a\n1.png,"a,b', "line 3: not valid CSV"),
        ("file_name,question,answer,aliases\n0.png,q,a,fox\n", "line 2: aliases must be a JSON list"),
    ]:
        (folder / "metadata.csv").write_text(bad, encoding="utf-8")
        with pytest.raises(ArenaError, match=problem):
            read_imagefolder(folder)


def test_pictures_are_turned_upright(tmp_path):
    folder = make_folder(tmp_path / "in", [], ())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels()).save(folder / "0.jpg", exif=exif)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.jpg", "question": "q", "answer": "a"}', encoding="utf-8")
    assert read_imagefolder(folder)[0].image.size == (4, 6)
