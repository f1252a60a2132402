"""What a picture's file says beside its pixels, colour profile, EXIF and colour chunks of PNG, and what of it stays."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, ImageCms

_ORIENTATION = int(ExifTags.Base.Orientation)
_MAKER_NOTE, _INTEROPERABILITY = int(ExifTags.Base.MakerNote), int(ExifTags.IFD.Interop)
_PARTS = (int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo))
_SAID = frozenset(
    int(tag)
    for tag in (
        *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software),
        *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
        *(ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor, ExifTags.Base.XPKeywords),
        *(ExifTags.Base.XPSubject, ExifTags.Base.Rating),
    )
)
"""EXIF of the picture itself that is about more than how its file is laid out."""

_OTHER = {
    "XMP": ("xmp", "XML:com.adobe.xmp"),
    "IPTC": ("photoshop", "iptc"),
    "comments": ("comment",),
}
"""Other metadata, by the names that Pillow has for them."""
_OTHER_TAGS = {"XMP": (700,), "IPTC": (33723, 34377)}
"""And by their tags in a TIFF file."""

_COLOUR_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
_CHUNK = 64
"""Bytes that such a chunk has at most."""


@dataclass(frozen=True)
class Extras:
    """What is kept, as bytes: an ICC profile, EXIF, and the chunks of a PNG file that say what its colours are, by
    name."""

    profile: bytes | None = None
    exif: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()


def orientation(image: Image.Image) -> int:
    """How the camera was held, by EXIF's numbers; 1, upright, where nothing that can be read says so."""
    found = _exif(image).get(_ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def usable_profile(profile: bytes | None, mode: str) -> tuple[bytes | None, str]:
    """The ICC profile of a picture of `mode` and nothing to say; None and what is wrong with it where it has none that
    can be used."""
    if profile is None:
        return None, ""
    space = profile_space(profile)
    if not space:
        return None, "its colour profile, which is damaged, left out"
    if space != ("GRAY" if mode in ("L", "LA") else "RGB"):
        return None, f"its colour profile, which is one for {space}, left out"
    return profile, ""


def profile_space(profile: bytes) -> str:
    """What an ICC profile is about, such as RGB; empty where it cannot be read."""
    try:
        return str(ImageCms.getOpenProfile(io.BytesIO(profile)).profile.xcolor_space).strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return ""


def kept_exif(image: Image.Image) -> bytes | None:
    """EXIF to go into a release: description, camera, author, date, exposure and place. Not the orientation, since
    pictures are upright, nor previews, which would show the original; maker notes may hold one too. None where there is
    nothing, or nothing that can be written again."""
    found, kept = _exif(image), Image.Exif()
    try:
        for tag in _SAID & set(found):
            kept[tag] = found[tag]
        for part in _PARTS:
            content = {tag: value for tag, value in found.get_ifd(part).items() if tag not in _WITHOUT}
            if content:
                kept[part] = content
        return kept.tobytes() if len(kept) else None
    except Exception:  # Pillow raises anything on values that are not of their tag's type
        return None


_WITHOUT = (_MAKER_NOTE, _INTEROPERABILITY)


def left_out(image: Image.Image, kept: bytes | None) -> str:
    """What of a picture's metadata is not in its release, in words, where `kept` is its EXIF that is; empty if all is,
    or there is none."""
    found = _exif(image)
    kinds = []
    if kept is None and (_SAID | set(_PARTS)) & set(found):
        kinds.append("EXIF (such as camera, date and place)")
    if kept is not None and (_MAKER_NOTE in found.get_ifd(ExifTags.IFD.Exif) or found.get_ifd(ExifTags.IFD.IFD1)):
        kinds.append("previews and maker notes of EXIF")
    tags: Any = getattr(image, "tag_v2", {})
    for kind, names in _OTHER.items():
        if any(name in image.info for name in names) or any(tag in tags for tag in _OTHER_TAGS.get(kind, ())):
            kinds.append(kind)
    if getattr(image, "text", None) and "comments" not in kinds:
        kinds.append("texts")
    return f"{', '.join(kinds)} left out" if kinds else ""


def colour_chunks(source: Path | io.BytesIO) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of a PNG file, by name, that say what its colours are: gamma, primaries, colour space."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return tuple(_chunks(file))
    source.seek(0)
    return tuple(_chunks(source))


def _chunks(file: BinaryIO) -> list[tuple[bytes, bytes]]:
    file.seek(8)
    found: dict[bytes, bytes] = {}
    while len(head := file.read(8)) == 8:
        length, name = int.from_bytes(head[:4]), head[4:]
        if name in (b"IDAT", b"IEND"):
            break
        if name in _COLOUR_CHUNKS and length <= _CHUNK:
            found.setdefault(name, file.read(length))
            file.seek(4, io.SEEK_CUR)
        else:
            file.seek(length + 4, io.SEEK_CUR)
    return list(found.items())


def _exif(image: Image.Image) -> Image.Exif:
    """A picture's EXIF, empty where it is damaged: its pixels are not."""
    try:
        return image.getexif()
    except Exception:  # as the parser of TIFF does on anything that is no TIFF
        return Image.Exif()
