"""Pictures as people have them: what they look like stays, and what was changed or cannot be used is said."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from icc import cmyk_profile, rgb_profile, swapped_profile
from PIL import ExifTags, Image, ImageCms, ImageOps, features
from PIL.PngImagePlugin import PngInfo

from arena.budget import MODES, mode_problem
from arena.data.pictures import decode as decoding
from arena.data.pictures.decode import Picture, decode, read_picture
from arena.errors import Refused

RNG = np.random.default_rng(4)


def colour(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = RNG.integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.frombytes(mode, size, values.tobytes())


def read(image: Image.Image, format: str = "PNG", keep_exif: bool = False, **how: object) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return read_picture(buffer, "x", keep_exif)


def shown(image: Image.Image, profile: bytes | None = None) -> np.ndarray:
    """What a viewer shows, in sRGB with alpha."""
    if profile is not None:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(image.convert("RGBA"))


PALETTE = colour().quantize(16)
CLEAR = colour().quantize(16)
CLEAR.info["transparency"] = 3
FORMS: dict[str, tuple[Callable[[], Image.Image], str, dict[str, object], str, str]] = {
    "black and white": (lambda: colour("L").convert("1"), "PNG", {}, "L", "black and white"),
    "palette": (lambda: PALETTE, "PNG", {}, "RGB", "palette"),
    "palette with a clear colour": (lambda: CLEAR, "PNG", {"transparency": 3}, "RGBA", "palette"),
    "gif with a clear colour": (lambda: CLEAR, "GIF", {"transparency": 3}, "RGBA", "palette"),
    "grey with a clear colour": (lambda: colour("L"), "PNG", {"transparency": 7}, "LA", "transparent colour"),
    "colour with a clear colour": (
        *(lambda: Image.new("RGB", (9, 9), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}),
        *("RGBA", "transparent colour"),
    ),
    "black and white with a clear colour": (
        *(lambda: colour("L").convert("1"), "PNG", {"transparency": 0}, "LA", "black and white"),
    ),
    "grey": (lambda: colour("L"), "TIFF", {}, "L", ""),
    "grey with alpha": (lambda: colour("LA"), "PNG", {}, "LA", ""),
    "colour with alpha": (lambda: colour("RGBA"), "WEBP", {"lossless": True, "exact": True}, "RGBA", ""),
    "JPEG 2000": (lambda: colour(), "JPEG2000", {}, "RGB", "comments"),
}


@pytest.mark.parametrize("form", FORMS)
def test_it_looks_as_its_file_does(form: str) -> None:
    make, format, how, mode, said = FORMS[form]
    buffer = io.BytesIO()
    make().save(buffer, format, **how)
    found = read_picture(buffer, "x")
    with Image.open(buffer) as file:
        assert np.array_equal(shown(found.image), shown(file))
    assert found.image.mode == mode in MODES
    assert len(found.changes) == bool(said) and said in "".join(found.changes)


def test_cmyk_becomes_srgb_as_its_profile_has_it() -> None:
    # Full cyan is red in this profile (Lab 53, 80, 67), which no conversion without it would give.
    profile = cmyk_profile({(1, 0, 0, 0): (round(53 * 2.55), 128 + 80, 128 + 67)})
    found = read(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=profile, quality=100)
    red, green, blue = found.image.getpixel((4, 4))  # type: ignore[misc]
    assert red > 230 and green < 30 and blue < 30 and found.extras.profile is None
    assert found.changes == ("CMYK became sRGB by its colour profile",)
    without = read(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100)
    assert without.image.getpixel((4, 4))[0] < 10 and "without a colour profile" in without.changes[0]  # type: ignore[index]
    wrong = read(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=rgb_profile(), quality=100)
    assert wrong.image.tobytes() == without.image.tobytes() and wrong.extras.profile is None


def test_a_lab_picture_becomes_srgb() -> None:
    found = read(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
    assert min(found.image.getpixel((0, 0))) >= 254 and "Lab became sRGB" in found.changes[0]


@pytest.mark.parametrize(("mode", "format"), [("RGB", "PNG"), ("RGBA", "PNG"), ("RGB", "JPEG"), ("RGB", "TIFF")])
def test_a_profile_is_kept_byte_for_byte(mode: str, format: str) -> None:
    profile = swapped_profile()
    found = read(colour(mode), format, icc_profile=profile)
    assert found.extras.profile == profile and not found.changes


def test_a_profile_of_palette_colours_is_theirs_when_they_are_written_out() -> None:
    assert read(PALETTE, icc_profile=swapped_profile()).extras.profile == swapped_profile()


@pytest.mark.parametrize(
    ("mode", "profile", "said"), [("L", rgb_profile(), "one for RGB, left out"), ("RGB", b"no", "damaged, left out")]
)
def test_a_profile_that_cannot_be_its_own_is_left_out(mode: str, profile: bytes, said: str) -> None:
    found = read(colour(mode), icc_profile=profile)
    assert found.extras.profile is None and said in found.changes[0]


def test_what_a_png_file_says_of_its_colours_is_kept() -> None:
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    info.add(b"pHYs", bytes(9))
    assert read(colour(), pnginfo=info).extras.chunks == ((b"gAMA", struct.pack(">I", 100_000)),)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_it_is_upright(number: int, format: str) -> None:
    image = colour()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    buffer = io.BytesIO()
    image.save(buffer, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    found = read_picture(buffer, "x", keep_exif=True)
    with Image.open(buffer) as file:
        assert np.array_equal(np.asarray(found.image), np.asarray(ImageOps.exif_transpose(file)))
    assert found.changes == (("turned upright, as its camera noted",) if number > 1 else ())
    assert found.extras.exif is None  # nobody may turn it again


def photo_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Copyright] = "Maker", "Somebody"
    exif[ExifTags.IFD.Exif] = {int(ExifTags.Base.MakerNote): b"secret", int(ExifTags.Base.LensModel): "Lens"}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return exif


def test_camera_and_place_are_left_out_unless_asked_for() -> None:
    without = read(colour(), "JPEG", exif=photo_exif())
    assert without.extras.exif is None and "EXIF (such as camera, date and place) left out" in without.changes
    kept = read(colour(), "JPEG", keep_exif=True, exif=photo_exif())
    assert kept.extras.exif is not None and b"secret" not in kept.extras.exif
    again = Image.Exif()
    again.load(kept.extras.exif)
    assert (again[ExifTags.Base.Make], again[ExifTags.Base.Copyright]) == ("Maker", "Somebody")
    assert again.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Lens"
    assert [float(x) for x in again.get_ifd(ExifTags.IFD.GPSInfo)[2]] == [52, 31, 12]
    assert kept.changes == ("previews and maker notes of EXIF left out",)


def test_no_preview_of_the_original_is_kept() -> None:
    """A thumbnail in EXIF shows the picture without its protection."""
    buffer, small = io.BytesIO(), io.BytesIO()
    colour(size=(16, 12)).save(small, "JPEG")
    preview = small.getvalue()
    first = struct.pack("<H", 1) + struct.pack("<HHI4s", 0x010F, 2, 4, b"Abc\0") + struct.pack("<I", 26)
    second = (
        struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, 56) + struct.pack("<HHII", 0x0202, 4, 1, len(preview))
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + struct.pack("<I", 0) + preview
    colour().save(buffer, "JPEG", exif=exif)
    assert preview in buffer.getvalue()
    kept = read_picture(buffer, "x", keep_exif=True)
    assert kept.extras.exif is not None and preview[20:] not in kept.extras.exif
    assert kept.changes == ("previews and maker notes of EXIF left out",)


def test_other_metadata_are_left_out_and_said() -> None:
    assert "comments left out" in read(colour(), "JPEG", comment=b"mine").changes
    assert "XMP left out" in read(colour(), "JPEG", xmp=b"<x:xmpmeta/>").changes


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("exif", [b"", b"no TIFF", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(40)])
def test_broken_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    image, png, jpeg = colour(), io.BytesIO(), io.BytesIO()
    image.save(png, "PNG")
    content = png.getvalue()
    found = read_picture(io.BytesIO(content[:33] + chunk(b"eXIf", exif) + content[33:]), "x", keep_exif=True)
    assert found.image.tobytes() == image.tobytes() and found.extras.exif is None
    image.save(jpeg, "JPEG", exif=b"Exif\0\0" + exif)
    assert read_picture(jpeg, "x").image.size == image.size


def scaled(remedy: str, image: Image.Image) -> Image.Image:
    """What comes of a remedy that an error names."""
    code = re.search(r"Image\.fromarray\(.*\)", remedy)
    assert code is not None and "convert(" not in remedy
    return eval(code[0], {"Image": Image, "np": np, "image": image})  # type: ignore[no-any-return]  # noqa: S307


def test_grey_of_16_bits_becomes_grey_of_8() -> None:
    values = np.arange(0, 65536, 97, dtype=np.uint16).reshape(26, 26)
    for format in ("PNG", "TIFF"):
        found = read(Image.fromarray(values), format)
        assert np.array_equal(np.asarray(found.image), np.rint(values / 257)) and "16 bits" in found.changes[0]
    clear = read(Image.fromarray(values), transparency=int(values[3, 3]))
    assert clear.image.mode == "LA" and np.argwhere(np.asarray(clear.image)[..., 1] == 0).tolist() == [[3, 3]]


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(30, 4000, 64).astype(np.uint16).reshape(8, 8),
        np.linspace(0, 1, 64).astype(np.float32).reshape(8, 8),
        np.linspace(-7e6, 7e8, 64).astype(np.int32).reshape(8, 8),
    ],
    ids=["12 bits of 16", "float", "32 bits"],
)
def test_the_remedy_for_wide_values_keeps_all_of_them(values: np.ndarray) -> None:
    image = Image.fromarray(values)
    with pytest.raises(Refused) as error:
        read(image, "TIFF")
    for remedy in (error.value.remedy, str(mode_problem(image))):
        made = scaled(remedy, image)
        assert made.mode == "L" and made.getextrema() == (0, 255)
        assert np.array_equal(np.argsort(np.asarray(made).ravel(), kind="stable"), np.arange(64))


def test_colours_of_16_bits_are_said() -> None:
    values = RNG.integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    start, end = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""),
    )
    found = read_picture(io.BytesIO(start + end), "x")
    assert np.array_equal(np.asarray(found.image), values >> 8) and found.changes == ("16 bits a colour became 8",)
    with pytest.raises(Refused, match="makes one of its 16-bit colours transparent: save it with an alpha channel"):
        read_picture(io.BytesIO(start + chunk(b"tRNS", values[0, 0].tobytes()) + end), "x")


@pytest.mark.parametrize(("format", "how"), [("TIFF", {}), ("GIF", {}), ("WEBP", {}), ("PNG", {})])
def test_several_pages_or_frames_are_refused(format: str, how: dict[str, object]) -> None:
    with pytest.raises(Refused, match=r"x has 3 pages or frames, .*: save each as a file of its own"):
        read(colour(), format, save_all=True, append_images=[colour(), colour()], **how)


def test_what_phones_and_scanners_put_beside_a_picture_is_no_page() -> None:
    image, buffer = colour(), io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[colour()])
    found = read_picture(buffer, "x")
    assert found.image.size == image.size and "further pictures in its file" in found.changes[0]
    small = colour(size=(6, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a reduced copy
    assert not read(image, "TIFF", save_all=True, append_images=[small]).changes


def test_formats_that_need_something_are_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def box(brand: bytes) -> io.BytesIO:
        return io.BytesIO(struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + b"mif1")

    monkeypatch.setattr(decoding, "formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(Refused, match=r"HEIC picture.*: pip install 'mmguard-arena\[heic\]', or save it as PNG"):
        read_picture(box(b"heic"), "x")
    with pytest.raises(Refused, match=r"AVIF picture.*: pip install 'pillow>=11.3'"):
        read_picture(box(b"avif"), "x")
    with pytest.raises(Refused, match=r"of no known format\): restore it, save it as PNG or JPEG"):
        read_picture(io.BytesIO(b"<svg/>"), "x")


def test_a_raw_file_is_not_its_preview(tmp_path: Path) -> None:
    colour().save(tmp_path / "a.nef", "TIFF")
    with pytest.raises(Refused, match=r"x is a raw file of a camera: develop it, and save it as PNG or JPEG"):
        read_picture(tmp_path / "a.nef", "x")
    with pytest.raises(Refused, match="raw file"):
        read(colour(), "TIFF", tiffinfo={50706: b"\1\4\0\0"})


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_pictures_of_phones_are_read(format: str) -> None:
    if format == "HEIF":
        pytest.importorskip("pillow_heif")
        decoding.formats()
    elif not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    image = Image.new("RGB", (32, 24), (200, 30, 60))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Phone"
    found = read(image, format, quality=95, exif=exif.tobytes())
    assert found.image.mode == "RGB" and found.image.size == (24, 32)
    assert np.abs(np.asarray(found.image).astype(int) - (200, 30, 60)).max() < 8
    assert any("EXIF" in change for change in found.changes)


def test_a_release_is_of_the_formats_of_releases(tmp_path: Path) -> None:
    colour().save(tmp_path / "x.png", "TIFF")
    assert decode(tmp_path / "x.png", "x").size == (24, 16)
    with pytest.raises(Refused, match="of no known format"):
        decode(tmp_path / "x.png", "x", only=decoding.RELEASED)
