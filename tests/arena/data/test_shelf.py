"""Pictures on the shelf are pictures like any other, and take no more memory than they may."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from arena.data import shelf
from arena.data.shelf import ShelvedImage, shelved
from arena.errors import ArenaError

MODES = ("L", "LA", "RGB", "RGBA")
SIZE = 50, 40


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Room for one picture in colour."""
    monkeypatch.setattr(shelf, "_SHELF", shelf._Shelf())
    shelf.limit(4 * SIZE[0] * SIZE[1])
    yield


def write(folder: Path, mode: str) -> tuple[Image.Image, Path]:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(bands).integers(0, 256, (SIZE[1], SIZE[0], bands), dtype=np.uint8)
    image, path = Image.fromarray(values[..., 0] if bands == 1 else values), folder / f"{mode}.png"
    image.save(path)
    return image, path


def take(path: Path, reads: list[Path] | None = None) -> Image.Image:
    def read() -> Image.Image:
        if reads is not None:
            reads.append(path)
        with Image.open(path) as image:
            return Image.fromarray(np.asarray(image))

    return shelved(path, f"sample {path.name!r}", read)


@pytest.mark.parametrize("mode", MODES)
def test_a_shelved_picture_is_what_it_was_read_from(mode: str, tmp_path: Path) -> None:
    wanted, path = write(tmp_path, mode)
    (tmp_path / "other").mkdir()
    found, other = take(path), take(write(tmp_path / "other", "RGB")[1])
    np.asarray(other)  # which takes the place of the first
    assert (found.mode, found.size) == (wanted.mode, wanted.size)
    assert found == wanted and wanted == found
    assert found != Image.new(mode, SIZE) and Image.new(mode, SIZE) != found
    assert np.array_equal(np.asarray(found), np.asarray(wanted))
    for operation in (
        lambda x: x.convert("RGB"),
        lambda x: x.copy(),
        lambda x: x.crop((3, 4, 20, 21)),
        lambda x: x.resize((7, 9)),
        lambda x: x.transpose(Image.Transpose.ROTATE_90),
        lambda x: x.getchannel(0),
        lambda x: ImageChops.invert(x.convert("L")),
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),  # noqa: S301 - as what is handed to a process is
    ):
        assert operation(found).tobytes() == operation(wanted).tobytes()


def test_what_has_no_room_is_read_again(tmp_path: Path) -> None:
    paths = [write(tmp_path, mode)[1] for mode in ("RGB", "RGBA")]
    reads: list[Path] = []
    first, second = (take(path, reads) for path in paths)
    assert reads == paths
    for _ in range(3):
        second.tobytes()
    assert reads == paths
    first.tobytes()
    second.tobytes()
    assert reads == [*paths, *paths]
    assert first._kept is None and shelf._SHELF._bytes == 4 * SIZE[0] * SIZE[1]
    shelf.limit(8 * SIZE[0] * SIZE[1])
    for image in (first, second, first, second):
        image.tobytes()
    assert len(reads) == 5
    del image, first, second
    gc.collect()
    assert shelf._SHELF._bytes == 0


def test_a_picture_that_was_changed_in_place_stays_changed(tmp_path: Path) -> None:
    first, second = (take(write(tmp_path, mode)[1]) for mode in ("RGB", "RGBA"))
    first.putpixel((3, 2), (1, 2, 3))
    first.paste((9, 9, 9), (10, 10, 12, 12))
    second.tobytes()
    assert first.getpixel((3, 2)) == (1, 2, 3) and first.getpixel((11, 11)) == (9, 9, 9)
    first.thumbnail((10, 10))
    second.tobytes()
    assert first.size == (10, 8) and np.asarray(first).shape == (8, 10, 3)


def test_another_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, "RGB")[1]
    found, other = take(path), take(write(tmp_path, "RGBA")[1])
    other.tobytes()
    os.utime(path, (1, 1))
    with pytest.raises(ArenaError, match=r"sample 'RGB\.png' was changed or removed while it was in use"):
        found.tobytes()
    path.unlink()
    with pytest.raises(ArenaError, match="was changed or removed"):
        found.convert("L")


def test_a_damaged_file_is_noticed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify"):
        take(path)


def test_a_picture_of_no_file(tmp_path: Path) -> None:
    made = ShelvedImage(lambda: Image.new("RGB", (4, 3), (5, 6, 7)), (4, 3), "RGB")
    assert made.getpixel((3, 2)) == (5, 6, 7)
