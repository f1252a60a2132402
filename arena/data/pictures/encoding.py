"""How a picture is written into a release, PNG, lossless WebP or JPEG, and what is read back of it."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Literal, Self

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field, model_validator

from arena.data.pictures.extras import Extras

Format = Literal["png", "webp", "jpeg"]

_SUFFIXES: dict[Format, tuple[str, ...]] = {"png": (".png",), "webp": (".webp",), "jpeg": (".jpg", ".jpeg")}
"""By format, the suffixes that its files may have; the first is that of a file which had another one."""

_LONGEST_SIDE: dict[Format, int] = {"png": 2**31 - 1, "webp": 16383, "jpeg": 65535}
"""Pixels of a side that a format can hold."""


class Encoding(BaseModel):
    """The format of a release's pictures. PNG and WebP are lossless; JPEG has no chroma subsampling, so that each block
    of 8 x 8 pixels is coded by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format = "png"
    quality: int | None = Field(default=None, ge=90, le=100, description="of JPEG alone: libjpeg's scale, 95 if None")

    @model_validator(mode="after")
    def _quality_is_for_jpeg(self) -> Self:
        if self.quality is not None and self.format != "jpeg":
            raise ValueError(f"{self.format} is lossless and has no quality: leave it out, or choose jpeg")
        return self

    @property
    def lossy(self) -> bool:
        return self.format == "jpeg"

    @property
    def name(self) -> str:
        """What a person calls it."""
        return {"png": "PNG", "webp": "lossless WebP", "jpeg": f"JPEG at quality {self._quality}"}[self.format]

    @property
    def _quality(self) -> int:
        return 95 if self.quality is None else self.quality

    def renamed(self, file: str) -> str:
        """The path of a picture in a release: a suffix of the format is kept as it is, another one replaced."""
        path = PurePosixPath(file)
        suffixes = _SUFFIXES[self.format]
        return (path if path.suffix.lower() in suffixes else path.with_suffix(suffixes[0])).as_posix()

    def problem(self, image: Image.Image) -> tuple[str, str] | None:
        """Why a picture of one of `arena.budget.MODES` cannot be written in this format, and a remedy."""
        if self.format == "jpeg" and image.mode.endswith("A"):
            return "has transparency, which JPEG has not", "release it as png or webp (--format)"
        if max(image.size) > _LONGEST_SIDE[self.format]:
            longest = _LONGEST_SIDE[self.format]
            return f"has a side of more than {longest} pixels, which {self.name} cannot hold", "release it as png"
        return None

    def encode(self, image: Image.Image, extras: Extras | None = None) -> bytes:
        """The bytes of a file: a function of pixels and `extras` alone, whatever the picture carries otherwise."""
        extras, bare, buffer = extras or Extras(), Image.fromarray(np.asarray(image)), io.BytesIO()
        beside = {"icc_profile": extras.profile, "exif": extras.exif}
        told = {name: value for name, value in beside.items() if value is not None}
        if self.format == "png":
            info = PngInfo()
            for name, content in extras.chunks:
                info.add(name, content)
            bare.save(buffer, "PNG", pnginfo=info, **told)
        elif self.format == "webp":  # exact: colours below transparent pixels too
            bare.save(buffer, "WEBP", lossless=True, exact=True, **told)
        else:
            bare.save(buffer, "JPEG", quality=self._quality, subsampling=0, **told)
        return buffer.getvalue()

    def published(self, image: Image.Image) -> Image.Image:
        """What is read back of a picture that was written: the picture itself where the format is lossless."""
        if not self.lossy:
            return image
        with Image.open(io.BytesIO(self.encode(image)), formats=("JPEG",)) as read:
            return Image.fromarray(np.asarray(read))


PNG = Encoding()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture read from a file in the mode that it was written in: WebP has no grey, so that a grey picture comes
    back in colours that are all equal. As it is where it never was of that mode."""
    if mode not in ("L", "LA") or image.mode != {"L": "RGB", "LA": "RGBA"}[mode]:
        return image
    values = np.asarray(image)
    if (values[..., :1] != values[..., :3]).any():
        return image
    return Image.fromarray(values[..., 0] if mode == "L" else np.ascontiguousarray(values[..., [0, 3]]))
