"""Pictures of every mode of Pillow's as ones of `arena.budget.MODES` that look the same, or why there is none."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from arena.budget import MODES
from arena.data.colours import scaling
from arena.data.pictures.extras import profile_space
from arena.errors import Refused

_AS = {
    "1": ("L", "black and white became grey"),
    "P": ("RGB", "its palette's colours were written out"),
    "PA": ("RGBA", "its palette's colours were written out"),
    "RGBX": ("RGB", "an unused fourth channel left out"),
    "RGBa": ("RGBA", "colours that were multiplied by their alpha were divided by it"),
    "La": ("LA", "greys that were multiplied by their alpha were divided by it"),
    "YCbCr": ("RGB", "YCbCr became RGB"),
    "HSV": ("RGB", "HSV became RGB"),
}
"""What other modes become, and what is said of it."""

_DARK = 4096
"""16-bit greys that all lie below this value would be levels 0 to 15 of 255: a black picture."""


class Plain(NamedTuple):
    """A picture in one of `arena.budget.MODES`, what was done to it, and whether it is in sRGB now, so that its profile
    is no longer its own."""

    image: Image.Image
    changes: list[str]
    in_srgb: bool = False


def plain(image: Image.Image, profile: bytes | None, deep: bool, where: str) -> Plain:
    """`image`, loaded, in a mode that a release can have. `profile` is its ICC profile, and `deep` whether its file has
    16 bits a colour, of which Pillow read 8.

    Raises `Refused`, which begins with `where`, for values that 8 bits cannot show without a choice of the owner's.
    """
    if image.mode.startswith("I;16"):
        return _from_16_bits(image, where)
    if image.mode in ("I", "F"):
        raise Refused(where, *_wide(image))
    if image.mode in ("CMYK", "LAB"):
        return _to_srgb(image, profile)
    changes = ["16 bits a colour became 8"] if deep else []
    mode, said = _AS.get(image.mode, (image.mode, ""))
    if image.has_transparency_data and not mode.endswith("A"):
        if deep:  # many 16-bit colours are one of 8 bits
            raise Refused(where, "makes one of its 16-bit colours transparent", "save it with an alpha channel")
        mode = "LA" if mode == "L" else "RGBA"
        if not said:
            said = "its transparent colour became an alpha channel"
    if mode not in MODES:
        raise Refused(where, f"is of mode {image.mode!r}, which has no 8-bit colours", "save it as an RGB picture")
    if said:
        changes.append(said)
    return Plain(image if image.mode == mode else image.convert(mode), changes)


def _wide(image: Image.Image) -> tuple[str, str]:
    bits = np.asarray(image).dtype.itemsize * 8
    return f"has values of {bits} bits, and which of them are black and white only you can say", scaling(image)


def _from_16_bits(image: Image.Image, where: str) -> Plain:
    """Grey of 16 bits: 65535 is white, as the PNG specification has it."""
    values = np.asarray(image)
    if 0 < values.max(initial=0) < _DARK:
        raise Refused(where, *_wide(image))
    wide = values.astype(np.uint32)
    wide += 128
    wide //= 257
    grey = wide.astype(np.uint8)
    changes = ["16 bits of grey became 8"]
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Plain(Image.fromarray(grey), changes)
    alpha = np.where(values == transparent, np.uint8(0), np.uint8(255))
    changes.append("its transparent colour became an alpha channel")
    return Plain(Image.fromarray(np.stack([grey, alpha], -1)), changes)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Plain:
    """CMYK and Lab, which no release can have: by the picture's own profile where it has one."""
    kind = "CMYK" if image.mode == "CMYK" else "Lab"
    if image.mode == "CMYK" and profile is not None and profile_space(profile) == "CMYK":
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        try:
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(own))
            converted = ImageCms.profileToProfile(image, own, srgb, renderingIntent=intent, outputMode="RGB")
        except (ImageCms.PyCMSError, ValueError):
            converted = None
        if converted is not None:
            return Plain(converted, [f"{kind} became sRGB by its colour profile"], True)
    without = " without a colour profile to go by" if image.mode == "CMYK" else ""
    return Plain(image.convert("RGB"), [f"{kind} became sRGB{without}"], True)
