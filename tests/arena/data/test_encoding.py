"""The formats of releases: pixels, names and what is kept beside them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from icc import rgb_profile
from PIL import ExifTags, Image
from pydantic import ValidationError

from arena.budget import MODES
from arena.data.pictures.encoding import PNG, Encoding, in_mode
from arena.data.pictures.extras import Extras

WEBP, JPEG = Encoding(format="webp"), Encoding(format="jpeg", quality=92)


def picture(mode: str) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(3).integers(0, 256, (13, 22, bands), dtype=np.uint8)
    return Image.frombytes(mode, (22, 13), values.tobytes())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("encoding", [PNG, WEBP], ids=lambda e: e.format)
def test_every_pixel_is_kept_under_transparency_too(encoding: Encoding, mode: str) -> None:
    image = picture(mode)
    with Image.open(io.BytesIO(encoding.encode(image))) as file:
        back = in_mode(file.copy(), mode)
    assert (back.mode, back.tobytes()) == (mode, image.tobytes())
    assert encoding.published(image) is image and encoding.problem(image) is None


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_published_as_jpeg_is_what_its_file_shows(mode: str) -> None:
    image = picture(mode)
    with Image.open(io.BytesIO(JPEG.encode(image))) as file:
        assert file.format == "JPEG" and file.mode == mode
        assert file.tobytes() == JPEG.published(image).tobytes() != image.tobytes()
        if mode == "RGB":
            assert {part[1:3] for part in file.layer} == {(1, 1)}  # each colour at every pixel
    better = np.abs(np.asarray(Encoding(format="jpeg", quality=100).published(image)).astype(int) - image).mean()
    assert better < np.abs(np.asarray(JPEG.published(image)).astype(int) - image).mean() / 2


def test_colours_that_were_never_grey_stay_colours() -> None:
    grey = picture("L")
    nearly = np.asarray(grey.convert("RGB")).copy()
    assert in_mode(Image.fromarray(nearly), "L").tobytes() == grey.tobytes()
    nearly[0, 0, 1] ^= 1
    assert in_mode(Image.fromarray(nearly), "L").mode == "RGB" == in_mode(Image.fromarray(nearly), "").mode


@pytest.mark.parametrize("encoding", [PNG, WEBP, JPEG], ids=lambda e: e.format)
def test_profile_and_exif_are_kept_beside_the_pixels(encoding: Encoding) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    image = picture("RGB")
    extras = Extras(rgb_profile(), exif.tobytes(), ((b"gAMA", struct.pack(">I", 55555)),))
    with Image.open(io.BytesIO(encoding.encode(image, extras))) as file:
        assert file.info["icc_profile"] == rgb_profile() and file.getexif()[ExifTags.Base.Artist] == "Somebody"
        assert encoding.format != "png" or file.info["gamma"] == pytest.approx(0.55555)
        assert file.tobytes() == encoding.published(image).tobytes()
    image.info |= {"icc_profile": b"of its source", "exif": b"of its source", "dpi": (72, 72)}
    assert encoding.encode(image) == encoding.encode(Image.fromarray(np.asarray(image)))


def test_names_keep_an_ending_of_the_format() -> None:
    names = {"a/b.v2.jpg": ("a/b.v2.png", "a/b.v2.webp", "a/b.v2.jpg"), "X.PNG": ("X.PNG", "X.webp", "X.jpg")}
    for name, wanted in {**names, "c.jpeg": ("c.png", "c.webp", "c.jpeg"), "d": ("d.png", "d.webp", "d.jpg")}.items():
        assert tuple(encoding.renamed(name) for encoding in (PNG, WEBP, JPEG)) == wanted


def test_what_a_format_cannot_hold_is_said() -> None:
    assert JPEG.problem(picture("RGBA")) == (
        "has transparency, which JPEG has not",
        "release it as png or webp (--format)",
    )
    wide = Image.new("L", (16384, 1))
    assert PNG.problem(wide) is None and "more than 16383 pixels" in WEBP.problem(wide)[0]  # type: ignore[index]


@pytest.mark.parametrize("wrong", [{"format": "gif"}, {"format": "jpeg", "quality": 89}, {"quality": 95}])
def test_settings_that_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Encoding.model_validate(wrong)
