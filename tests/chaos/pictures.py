"""Small pictures of every format and mode, and ways to change them beyond their checksums."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@cache
def samples() -> tuple[tuple[str, bytes], ...]:
    """Suffix and content of small pictures."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    frames = [Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(3)]
    turned = Image.Exif()
    turned[0x0112] = 6
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "a note " * 20, zip=True)
    notes.add_itxt("title", "a title", "en", "title", zip=True)
    made: list[tuple[str, bytes]] = []

    def add(suffix: str, image: Image.Image, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append((suffix, buffer.getvalue()))

    for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"):
        add(".png", colour.convert("I").convert("I;16") if mode == "I;16" else colour.convert(mode), "PNG")
    add(".png", colour, "PNG", pnginfo=notes, exif=turned)
    add(".png", frames[0], "PNG", save_all=True, append_images=frames[1:])
    add(".png", colour.convert("P"), "PNG", transparency=3)
    for mode in ("L", "RGB", "CMYK"):
        add(".jpg", colour.convert(mode), "JPEG", quality=80)
    add(".jpg", colour, "JPEG", progressive=True, exif=turned, comment=b"a note")
    add(".gif", colour.convert("P"), "GIF")
    add(".gif", frames[0].convert("P"), "GIF", save_all=True, append_images=[f.convert("P") for f in frames[1:]])
    add(".webp", colour, "WEBP", quality=60, exif=turned)
    add(".webp", colour.convert("RGBA"), "WEBP", lossless=True)
    add(".webp", frames[0], "WEBP", save_all=True, append_images=frames[1:])
    add(".bmp", colour, "BMP")
    add(".bmp", colour.convert("P"), "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        add(".tif", colour, "TIFF", compression=compression)
    add(".tiff", colour.convert("F"), "TIFF")
    add(".tiff", colour, "TIFF", exif=turned)
    return tuple(made)


def mended(content: bytes) -> bytes:
    """A PNG with its checksums put right, so that what was changed is read; anything else as it is."""
    if not content.startswith(_PNG):
        return content
    parts, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + size > len(content):
            break
        body = content[at + 4 : at + 8 + size]
        parts.append(content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + size
    return b"".join([*parts, content[at:]])


def sized(content: bytes, width: int, height: int) -> bytes:
    """A picture whose header says another size, where the header is a simple one."""
    if content.startswith(_PNG):
        return mended(content[:16] + struct.pack(">II", width % 2**32, height % 2**32) + content[24:])
    if content.startswith(b"GIF8"):
        return content[:6] + struct.pack("<HH", width % 2**16, height % 2**16) + content[10:]
    if content.startswith(b"BM"):
        return content[:18] + struct.pack("<II", width % 2**32, height % 2**32) + content[26:]
    if content.startswith(b"\xff\xd8"):
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if (at := content.find(marker)) > 0:
                return content[: at + 5] + struct.pack(">HH", height % 2**16, width % 2**16) + content[at + 9 :]
    return content


@cache
def bomb(width: int, height: int, kind: int, depth: int) -> bytes:
    """A PNG of a few kilobytes that unfolds into `width` x `height` pixels."""
    row = 1 + -(-width * _CHANNELS[kind] * depth // 8)
    pack = zlib.compressobj(9)
    rows = b"\0" * (row * 64)
    body = [pack.compress(rows) for _ in range(height // 64)]
    body.append(pack.compress(b"\0" * (row * (height % 64))) + pack.flush())
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    if kind == 3:
        parts.append((b"PLTE", bytes(range(6))))
    parts += [(b"IDAT", b"".join(body)), (b"IEND", b"")]
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@cache
def text_bomb(name: bytes) -> bytes:
    """A small PNG whose compressed note (``zTXt``, ``iTXt``, ``iCCP``) unfolds into 256 MB."""
    note = zlib.compress(b"\0" * 2**28, 9)
    data = {b"zTXt": b"note\0\0", b"iCCP": b"note\0\0", b"iTXt": b"note\0\1\0en\0note\0"}[name] + note
    plain = samples()[1][1]
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return plain[:33] + chunk + plain[33:]
