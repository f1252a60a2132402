"""Colour profiles to test with: Pillow makes none for CMYK, nor one that shows."""

from __future__ import annotations

import struct

from PIL import ImageCms


def rgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: looks other than it is."""
    profile = bytearray(rgb_profile())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


def cmyk_profile(inks: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A profile whose colours, Lab of 8 bits, are given at corners of CMYK; other corners are white. ICC.1:2001-04,
    6.5.8 (lut8Type)."""
    table = b"".join(
        bytes(inks.get((c, m, y, k), (255, 128, 128))) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    )
    one = struct.pack(">i", 1 << 16)
    unit = b"".join(one if i % 4 == 0 else bytes(4) for i in range(9))
    straight = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + 4 * straight + table + 3 * straight
    tags = {
        b"A2B0": lut,
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"cmyk\0" + bytes(78),
    }
    head, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        head += name + struct.pack(">II", at + len(body), len(content))
        body += content
    total = 128 + len(head) + len(body)
    header = struct.pack(">I4sI4s4s4s", total, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(24) + struct.pack(">I", 0) + struct.pack(">iii", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + head + body
