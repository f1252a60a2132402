"""A data owner's folder of all kinds of pictures, sound and unsound, with names in five scripts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from icc import swapped_profile
from PIL import ExifTags, Image, features

NAMES = ("photo {} ü", "снимок-{}", "照片{}", "صورة_{}", "चित्र{}", "사진 {}")


def scene(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Smooth colours with some grain, as photographs have them."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.fromarray(rng.integers(0, 8, (64, 64, 3), dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)
    return Image.blend(coarse, grain, 0.1)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = orientation, "Camera"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return exif


def _grey(image: Image.Image, dtype: type, scale: float) -> Image.Image:
    return Image.fromarray((np.asarray(image.convert("L")).astype(np.float64) * scale).astype(dtype))


def _alpha(image: Image.Image, mode: str) -> Image.Image:
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


Write = Callable[[Image.Image, Path], None]

SOUND: dict[str, tuple[str, Write]] = {
    "photograph on its side": (".jpg", lambda i, p: i.save(p, "JPEG", quality=92, exif=_exif(6))),
    "plain": (".png", lambda i, p: i.save(p)),
    "transparent": (".png", lambda i, p: _alpha(i, "RGBA").save(p)),
    "grey and transparent": (".PNG", lambda i, p: _alpha(i, "LA").save(p)),
    "palette": (".png", lambda i, p: i.quantize(64).save(p)),
    "clear colour": (".png", lambda i, p: i.convert("L").save(p, transparency=128)),
    "16 bits": (".png", lambda i, p: _grey(i, np.uint16, 257).save(p)),
    "black and white": (".tif", lambda i, p: i.convert("1").save(p)),
    "other colour space": (".png", lambda i, p: i.save(p, icc_profile=swapped_profile())),
    "for print": (".tiff", lambda i, p: i.convert("CMYK").save(p)),
    "for print as JPEG": (".jpeg", lambda i, p: i.convert("CMYK").save(p, quality=95)),
    "web": (".webp", lambda i, p: i.save(p, quality=90)),
    "bitmap": (".bmp", lambda i, p: i.save(p)),
    "gif": (".gif", lambda i, p: i.quantize(32).save(p)),
    "scan": (".jpg", lambda i, p: i.convert("L").save(p, dpi=(300, 300))),
    "phone": (".jpg", lambda i, p: i.save(p, "MPO", save_all=True, append_images=[i.reduce(4)], exif=_exif(3))),
    "jpeg 2000": (".jp2", lambda i, p: i.save(p)),
    **({"avif": (".avif", lambda i, p: i.save(p, quality=90))} if features.check("avif") else {}),
}
UNSOUND: dict[str, tuple[str, Write]] = {
    "pages": (".tif", lambda i, p: i.save(p, save_all=True, append_images=[i])),
    "animated": (".webp", lambda i, p: i.save(p, save_all=True, append_images=[i.rotate(90)])),
    "cut off": (".jpg", lambda i, p: _cut(i, p)),
    "floats": (".tiff", lambda i, p: _grey(i, np.float32, 1 / 255).save(p)),
    "no picture": (".png", lambda i, p: _text(p)),
}


def _cut(image: Image.Image, path: Path) -> None:
    image.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _text(path: Path) -> None:
    path.write_text("<html>404</html>", encoding="utf-8")


def write_mixed_folder(folder: Path, count: int, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Pictures of every kind in turn, `count` files and rows in all, of sizes in turn. The kinds by file; those of
    `UNSOUND` cannot be released, nor those without a row, without a file, and without an answer."""
    rng = np.random.default_rng(8)
    kinds = {**SOUND, **UNSOUND}
    found: dict[str, str] = {}
    rows = []
    for number in range(count - 3):
        kind = list(kinds)[number % len(kinds)]
        ending, write = kinds[kind]
        name = NAMES[number % len(NAMES)].format(number) + ending
        stored = unicodedata.normalize("NFD", name) if number % 2 else name
        folder.mkdir(parents=True, exist_ok=True)
        write(scene(rng, sizes[number % len(sizes)]), folder / stored)
        found[name] = kind
        rows.append({"file_name": name, "question": f"what is in picture {number}?", "answer": "a scene"})
    scene(rng, sizes[0]).save(folder / "orphan.png")
    scene(rng, sizes[0]).save(folder / "unanswered.png")
    rows.append({"file_name": "unanswered.png", "question": "what?", "answer": " "})
    rows.append({"file_name": "gone.png", "question": "what?", "answer": "it"})
    found |= {"unanswered.png": "no answer", "orphan.png": "no row", "gone.png": "no file"}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return found
