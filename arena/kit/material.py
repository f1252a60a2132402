"""Samples to try plugins on: plain ones, and those at the edges of what a release may hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from arena.budget import MODES
from arena.data.folder import read_imagefolder
from arena.data.sample import Sample

SIDE = 48
ANSWERS = ("fox", "owl", "bear")
QUESTIONS = ("which clan drew this picture?", "what clan does this scene belong to?", "which clan is this?")

OTHERS = {"P": ".png", "I;16": ".png", "CMYK": ".tiff", "1": ".png"}
"""Modes of files that become one that a release can have where data are read, and a format that has them."""


def plain(count: int, side: int = SIDE, seed: int = 0) -> list[Sample]:
    """RGB pictures of `side` pixels of their own brightness each, with three answers in turn. No value is so near to
    black or white that a change of a budget up to 32 would be cut off."""
    rng = np.random.default_rng(seed)
    brightness = np.linspace(75, 180, count)
    return [
        Sample(f"plain-{i}", _textured(rng, (side, side, 3), level), QUESTIONS[i % 3], ANSWERS[i % len(ANSWERS)])
        for i, level in enumerate(brightness)
    ]


def _textured(rng: np.random.Generator, shape: tuple[int, ...], level: float) -> Image.Image:
    return Image.fromarray(np.clip(level + rng.integers(-40, 41, shape), 35, 220).astype(np.uint8))


def read_modes(folder: Path) -> list[Sample]:
    """One sample of every mode that a release may have, of others that become one of these, and one whose camera noted
    that it lies on its side, read from files as a data owner's are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for mode in MODES:
        channels = len(Image.new(mode, (1, 1)).getbands())
        values = _textured(rng, (33, 40) if channels == 1 else (33, 40, channels), 128)
        values.save(folder / f"{mode}.png")
    for number, (mode, ending) in enumerate(OTHERS.items()):
        grey = _textured(rng, (33, 40), 128)
        wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        (wide if mode == "I;16" else grey.convert(mode)).save(folder / f"other-{number}{ending}")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turn by a quarter
    _textured(rng, (20, 50, 3), 128).save(folder / "turned.jpg", exif=turned)
    _describe(folder)
    samples = read_imagefolder(folder)
    (upright,) = [s.image for s in samples if s.id == "turned.jpg"]
    if upright.size != (20, 50):
        raise AssertionError(f"a picture that lies on its side was read with the size {upright.size}")
    for sample in samples:
        if sample.image.mode not in MODES:
            raise AssertionError(f"the picture {sample.id} was read with the mode {sample.image.mode}")
    return samples


def _describe(folder: Path) -> None:
    files = sorted(path.name for path in folder.iterdir())
    rows = [{"file_name": f, "question": QUESTIONS[i % 3], "answer": ANSWERS[i % 3]} for i, f in enumerate(files)]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


SIZES: Mapping[str, tuple[int, int]] = {
    "a pixel wide": (1, 24),
    "a pixel high": (24, 1),
    "a single pixel": (1, 1),
    "4,000 pixels wide": (4000, 40),
    "4,000 pixels high": (40, 4000),
}
"""Width and height; neither is more than 200 times the other where a model reads them, which is as far as some go."""


def sizes() -> list[Sample]:
    """One sample of every size of `SIZES`, named by it."""
    rng = np.random.default_rng(2)
    return [
        Sample(name, _textured(rng, (height, width, 3), 128), QUESTIONS[i % 3], ANSWERS[i % 3])
        for i, (name, (width, height)) in enumerate(SIZES.items())
    ]


TEXTS: Mapping[str, str] = {
    "one word": "clan?",
    "one mark": "?",
    "very long": " ".join(["which of the many clans in this very long story drew the picture"] * 25) + "?",
    "right to left": "أي عشيرة رسمت هذه الصورة؟",
    "emoji": "which clan 🦊🏳️‍🌈👩🏽‍🚀 drew this?",
    "lines": "which clan drew this?\n(A) fox\n(B) owl\nAnswer with a letter.",
    "markup": "which <b>clan</b> {drew} [this] %s \\n?",
}
"""Questions by what is special about them. An empty one is refused where data are read."""


def texts() -> list[Sample]:
    """One sample of every text of `TEXTS`, named by it."""
    rng = np.random.default_rng(3)
    return [
        Sample(name, _textured(rng, (SIDE, SIDE, 3), 128), question, ANSWERS[i % 3])
        for i, (name, question) in enumerate(TEXTS.items())
    ]


def repeated() -> list[Sample]:
    """Samples of which two show one picture with another question, and two are the same but for their ids."""
    one, other = plain(2, seed=4)
    return [
        one,
        Sample("the picture again", one.image.copy(), "what clan is it?", one.answer),
        other,
        Sample("the sample again", other.image.copy(), other.question, other.answer),
    ]


def placeholder(token: str) -> list[Sample]:
    """Two samples, of which one has in its question what stands for a picture."""
    first, second = plain(2, seed=5)
    return [first, second.with_content(second.image, f"what does {token} mean here?")]
