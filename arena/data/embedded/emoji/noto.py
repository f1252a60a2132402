"""Google's Noto emojis, 64 x 64 RGBA: those that come with the arena, and all of them from the npm package.

Pictures: Noto Emoji, Copyright Google LLC, Apache-2.0 (``LICENSE`` beside this file), as the npm package
``emoji-datasource-google`` has them, whose names and categories (Cal Henderson, MIT) are those of Unicode's emoji list.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from arena.data.embedded.emoji.bases import SKIN_TONES, base_of
from arena.data.embedded.emoji.kinds import KINDS, kind_of
from arena.errors import UsageError

PACKAGE = "emoji-datasource-google"
EDITION = "16.0.0"
SHIPPED = Path(__file__).parent / "noto.zip"
SIZE = 64
FLAG = "country-flag"
"""The subcategory of the flags of countries and territories."""


@dataclass(frozen=True)
class Emoji:
    """One picture and what its publishers say of it."""

    code: str
    """Code points as Unicode's charts write them, such as "1F9D1-200D-1F680"."""
    name: str
    """Lower case, as Unicode has it or, without a name there, the package's short name."""
    subcategory: str
    png: bytes
    colour: str | None = None
    """The name of the colour of most of it (`arena.data.colour_names`), of those that come with the arena."""

    @property
    def base(self) -> str:
        """What its variants have in common; see `arena.data.embedded.emoji.bases`."""
        return base_of(self.code)

    @property
    def kind(self) -> str | None:
        """A key of `KINDS`; None for flags and parts of other emojis."""
        return kind_of(self.code, self.subcategory)

    @property
    def group(self) -> str | None:
        return None if self.kind is None else KINDS[self.kind].group

    @property
    def image(self) -> Image.Image:
        """RGBA, 64 x 64."""
        with Image.open(io.BytesIO(self.png)) as picture:
            if picture.size != (SIZE, SIZE):
                raise UsageError(f"emoji {self.code}: {picture.size} pixels where {PACKAGE} has {(SIZE, SIZE)}")
            return picture.convert("RGBA")


@cache
def shipped() -> tuple[Emoji, ...]:
    """The emojis that come with the arena: those of the datasets ``emoji`` and ``flags``."""
    with zipfile.ZipFile(SHIPPED) as archive:
        facts = json.loads(archive.read("index.json"))
        return tuple(Emoji(**fact, png=archive.read(f"{fact['code']}.png")) for fact in facts)


@cache
def shipped_digest() -> str:
    """SHA-256 of the archive that comes with the arena."""
    return hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def packaged(package: Path, tones: tuple[str, ...] = SKIN_TONES) -> Iterator[Emoji]:
    """All emojis of the npm package, in the order of Unicode's list; an emoji with a skin tone follows the one without.

    `package` is what ``npm pack emoji-datasource-google`` leaves, or the folder that ``npm install`` makes; `tones` are
    the skin tones that are wanted. Raises `UsageError` where the package is not there, or is another.
    """
    read = _reader(package)
    for entry in sorted(json.loads(read("emoji.json")), key=lambda entry: (entry["sort_order"], entry["unified"])):
        name = (entry["name"] or entry["short_name"].replace("_", " ")).lower()
        variants = [entry, *(v for tone, v in entry.get("skin_variations", {}).items() if tone in tones)]
        for variant in variants:
            if variant["has_img_google"]:
                png = read(f"img/google/64/{variant['image']}")
                yield Emoji(variant["unified"], name, entry["subcategory"], png)


def _reader(package: Path) -> _Folder | _Tarball:
    if package.is_dir() and (package / "emoji.json").is_file():
        return _Folder(package)
    if package.is_file():
        return _Tarball(package)
    raise UsageError(
        f"{package}: the npm package {PACKAGE} is not there; get it with `npm pack {PACKAGE}@{EDITION}` and name the "
        f"file that this leaves, {PACKAGE}-{EDITION}.tgz"
    )


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise UsageError(f"{self._folder}: no {name} in it ({error.strerror}): unpack {PACKAGE} anew") from error


class _Tarball:
    def __init__(self, path: Path) -> None:
        self._path = path
        wanted = ("package/emoji.json", "package/img/google/64/")
        try:
            with tarfile.open(path) as archive:
                self._files = {
                    member.name.removeprefix("package/"): file.read()
                    for member in archive
                    if member.name.startswith(wanted) and (file := archive.extractfile(member))
                }
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UsageError(f"{path}: no npm package can be read from it ({error}): `npm pack {PACKAGE}`") from error

    def __call__(self, name: str) -> bytes:
        if name not in self._files:
            raise UsageError(f"{self._path}: no {name} in it: is this {PACKAGE}?")
        return self._files[name]
