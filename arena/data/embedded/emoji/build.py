"""Builds ``noto.zip``, the emojis that come with the arena, from the npm package:

    npm pack emoji-datasource-google@16.0.0
    python -m arena.data.embedded.emoji.build emoji-datasource-google-16.0.0.tgz

The rule: of each kind that the dataset ``emoji`` asks about seven tenths of its bases, those whose digests come first,
with all their variants but the middle skin tones; and the flags of the countries of the dataset ``flags``. The other
bases are left to the training of the tiny models. Colours are measured here, once.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from arena.data.colour_names import dominant
from arena.data.embedded.emoji.facts import COUNTRIES, country_code
from arena.data.embedded.emoji.kinds import ASKED
from arena.data.embedded.emoji.noto import FLAG, SHIPPED, Emoji, packaged
from arena.files import atomically

SHARE = 0.7
TONES = ("1F3FB", "1F3FF")


def chosen(emojis: Sequence[Emoji]) -> list[Emoji]:
    """Those of `emojis` that are shipped, in order."""
    bases: set[str] = set()
    for kind in sorted(ASKED):
        of_kind = sorted({e.base for e in emojis if e.kind == kind}, key=_digest)
        bases |= set(of_kind[: math.ceil(SHARE * len(of_kind))])
    return [
        e
        for e in emojis
        if (e.kind in ASKED and e.base in bases) or (e.subcategory == FLAG and country_code(e.code) in COUNTRIES)
    ]


def _digest(base: str) -> bytes:
    return hashlib.sha256(base.encode()).digest()


def write(emojis: Sequence[Emoji], path: Path) -> None:
    """One archive, of the same bytes for the same emojis: the PNG files as they were published, and an index."""
    index = [
        {"code": e.code, "name": e.name, "subcategory": e.subcategory, "colour": dominant(e.image)} for e in emojis
    ]
    files = {"index.json": json.dumps(index, indent=0).encode()} | {f"{e.code}.png": e.png for e in emojis}
    with atomically(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # with the date 1980-01-01
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


if __name__ == "__main__":
    write(chosen(list(packaged(Path(sys.argv[1]), TONES))), SHIPPED)
