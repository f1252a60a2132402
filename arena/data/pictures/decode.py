"""A picture's file read safely, as it is or as one that a release can have: upright, of 8 bits, looking as it did."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from arena.data.pictures.extras import Extras, colour_chunks, kept_exif, left_out, orientation, usable_profile
from arena.data.pictures.modes import plain
from arena.errors import ArenaError, Refused

MAX_PIXELS = 64 * 2**20
"""Pictures of more pixels are refused before they are decoded."""

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "mpo", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("jp2", "j2k", "jpx", "ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif", "hif"),
    )
)
"""How the names of pictures end, in lower case."""

RAW = frozenset(
    f".{ending}"
    for ending in (
        *("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "orf", "rw2"),
        *("raf", "pef", "srw", "rwl", "3fr", "iiq", "x3f", "erf", "mrw", "kdc"),
    )
)
"""How those of raw files of cameras end, of which Pillow would read the small preview."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "JPEG2000", "PPM")
RELEASED = ("PNG", "WEBP", "JPEG")
"""The formats of releases: what a plugin's process leaves is decoded as nothing else."""

_DNG_VERSION = 50706
_RAW = "is a raw file of a camera", "develop it, and save it as PNG or JPEG"
_SUBFILE, _NO_PAGE = 254, 0b101
"""TIFF's tag NewSubfileType, and its bits for a reduced copy of a page and for a mask."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """Pixels in one of `arena.budget.MODES`, what the file says beside them, and what was changed, in words."""

    image: Image.Image
    extras: Extras
    changes: tuple[str, ...]


def read_picture(source: Path | io.BytesIO, where: str, keep_exif: bool = False) -> Picture:
    """The picture of a file or of its bytes as one that a release can have. Its profile is kept, or its colours become
    sRGB by it; EXIF is left out unless it is to be kept.

    Raises `Refused`, which begins with `where`, for a picture that is missing, damaged, too large, of several pages or
    frames, or whose values 8 bits cannot show.
    """
    if isinstance(source, Path) and source.suffix.lower() in RAW:
        raise Refused(where, *_RAW)
    with _opened(source, where) as image:
        changes = _one_page(image, where)
        deep = ";16" in str(getattr(image, "tile", ""))
        turn = orientation(image)
        image.load()
        exif = kept_exif(image) if keep_exif else None
        said = left_out(image, exif)
        own = image.info.get("icc_profile") or None
        chunks = colour_chunks(source) if image.format == "PNG" else ()
        found = plain(image, own, deep, where)
        profile, problem = (None, "") if found.in_srgb else usable_profile(own, found.image.mode)
        upright = Image.fromarray(np.asarray(_turned(found.image, turn, image.format)))
    changes += found.changes
    if turn in _UPRIGHT:
        changes.append("turned upright, as its camera noted")
    changes += [text for text in (problem, said) if text]
    return Picture(upright, Extras(profile, exif, chunks), tuple(changes))


def decode(
    source: Path | io.BytesIO, where: str, size: tuple[int, int] | None = None, only: tuple[str, ...] | None = None
) -> Image.Image:
    """The picture of a file or of its bytes, in its own mode, turned upright as its camera noted; of the formats `only`
    where some are named, such as `RELEASED`.

    Raises `Refused`, which begins with `where`, for a picture that is missing, damaged, of more than `MAX_PIXELS`
    pixels, or of another `size` (width, height) where one is wanted; the last two are found before anything is decoded.
    """
    with _opened(source, where, size, only) as image:
        turn = orientation(image)
        image.load()
        return _turned(image, turn, image.format)


@contextmanager
def _opened(
    source: Path | io.BytesIO, where: str, size: tuple[int, int] | None = None, only: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """The opened file, to be loaded within the block; whatever decoders raise there is said as `Refused`."""

    def refuse(reason: str, remedy: str) -> NoReturn:
        raise Refused(where, reason, remedy) from None

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF, which costs nothing else
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=tuple(only or formats())) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                if size is not None and image.size != size:
                    is_of = f"is of {image.width} x {image.height} pixels instead of {size[0]} x {size[1]}"
                    refuse(is_of, "give a picture of that size")
                yield image
    except ArenaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        refuse(f"is too large to decode safely ({error}; the limit is {MAX_PIXELS} pixels)", "scale it down")
    except FileNotFoundError:
        refuse("is not in the folder", "add the picture or remove the row")
    except UnidentifiedImageError:  # which would print where a file's bytes lie in memory
        refuse(*_unknown(source))
    except Exception as error:  # decoders raise anything on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            refuse(f"cannot be read ({error.strerror})", "check its name and permissions, or remove its row")
        refuse(f"is damaged or no picture ({error})", "restore it or remove its row")


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read: AVIF where Pillow was built with it, HEIC where pillow-heif is installed."""
    found = list(_FORMATS)
    if features.check("avif"):
        found.append("AVIF")
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append("HEIF")
    return tuple(found)


def _unknown(source: Path | io.BytesIO) -> tuple[str, str]:
    """Why Pillow knows no format for a file, and the remedy."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(32)
    else:
        head = source.getvalue()[:32]
    brands = head[8:] if head[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands:
        return "is an AVIF picture, which this Pillow does not read", "pip install 'pillow>=11.3', or save it as PNG"
    if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")):
        return (
            "is a HEIC picture, which Pillow reads with pillow-heif",
            "pip install 'mmguard-arena[heic]', or save it as PNG",
        )
    return "is damaged or no picture (of no known format)", "restore it, save it as PNG or JPEG, or remove its row"


def _one_page(image: Image.Image, where: str) -> list[str]:
    """What is to be said of further pictures in a file. Raises `Refused` for several pages or frames."""
    if image.format == "MPO":  # a JPEG file of a phone, whose other pictures are previews, depths or gains
        return ["further pictures in its file (such as previews and depth) left out"]
    tags: Any = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags:
        raise Refused(where, *_RAW)
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and frames > 1:
        frames = _pages(image, frames)
    if frames > 1:
        raise Refused(
            where,
            f"has {frames} pages or frames, and a sample is about one picture",
            "save each as a file of its own with a row of its own",
        )
    return []


def _pages(tiff: Any, frames: int) -> int:
    """How many frames of a TIFF file are pages of their own."""
    pages = 0
    for frame in range(frames):
        tiff.seek(frame)
        pages += not int(tiff.tag_v2.get(_SUBFILE, 0)) & _NO_PAGE
    tiff.seek(0)
    return pages


def _turned(image: Image.Image, turn: int, format: str | None) -> Image.Image:
    """Upright, for EXIF's number of an orientation; Pillow turns TIFF files itself."""
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT and format != "TIFF" else image
