"""Pictures that others made, for the training of the tiny models: emojis, stamps and clip art, with questions.

Three sources, none of which comes with the arena; they are read where they are installed:

* emojis: the npm package ``emoji-datasource-google`` (Noto emoji, Google, Apache-2.0). Flags are left out, and so is
  every emoji of which a variant is in the datasets ``emoji`` or ``flags``.
* stamps: photographs and drawings with captions of Debian's ``tuxpaint-stamps-default`` (GPL).
* clip art: drawings by theme of Debian's ``openclipart-png`` (public domain), without flags.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from arena.data.colour_names import COLOURS, dominant
from arena.data.embedded.emoji.kinds import FACTS, KINDS
from arena.data.embedded.emoji.noto import EDITION, FLAG, PACKAGE, packaged, shipped
from arena.errors import UsageError
from arena.lvlm.zoo.picture_folders import CLIP_ART, STAMPS, kind_of_folder

SIZE = 64
"""Side of a picture."""
_PIXELS = 50_000_000
"""A file that claims more is left out: the largest of the clip art claims 231 million."""
_MOST = 120
"""Clip art of one folder, at most: there are 1,378 stars."""


@dataclass(frozen=True)
class Sources:
    """Where the pictures are."""

    emoji: Path = Path(f"{PACKAGE}-{EDITION}.tgz")
    """What ``npm pack`` left, or the unpacked folder."""
    stamps: Path = Path("/usr/share/tuxpaint/stamps")
    clip_art: Path = Path("/usr/share/openclipart/png")


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it; an attribute that nobody knows is None."""

    image: Image.Image
    """RGB, 64 x 64, the thing as large as fits, on a plain soft ground where it was transparent."""
    name: str | None
    """What it shows, one or two lower-case words of `words`."""
    kind: str | None
    """A key of `arena.data.embedded.emoji.kinds.KINDS`, such as "bird"."""
    colour: str | None
    """The name of the colour of most of it, of `arena.data.colour_names.COLOURS`; measured."""
    source: str
    """"emoji", "stamps" or "clip art"."""

    @property
    def group(self) -> str | None:
        """The group of its kind, such as "nature"."""
        return None if self.kind is None else KINDS[self.kind].group


def pretraining_pictures(sources: Sources = Sources()) -> list[Picture]:
    """All pictures of all three sources, in an order that is always the same; about 5,100, in a minute.

    Raises `UsageError` that says how to get a source that is not there.
    """
    return [*_emojis(sources.emoji), *_stamps(sources.stamps), *_clip_art(sources.clip_art)]


# Questions about a picture. Each asker returns an answer, or None where it is not known.

_ANSWERS: Mapping[str, Callable[[Picture], str | None]] = {
    "name": lambda p: p.name,
    "kind": lambda p: p.kind,
    "group": lambda p: p.group,
    "colour": lambda p: p.colour,
    "alive": lambda p: p.kind and KINDS[p.kind].says("alive"),
    "edible": lambda p: p.kind and KINDS[p.kind].says("edible"),
    "vehicle": lambda p: p.kind and KINDS[p.kind].says("vehicle"),
}
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "name": ("what is it?", "what is this?", "what does the picture show?"),
    "kind": ("what kind is it?", "what kind of thing is this?"),
    "group": ("what group is it?", "which group is this of?"),
    "colour": ("what colour is it?", "which colour has this thing?"),
    "alive": ("is it alive?", "is this alive?"),
    "edible": ("is it edible?", "can people eat this?"),
    "vehicle": ("is it a vehicle?", "is this a vehicle?"),
}
"""Wordings by kind of question."""


def ask(picture: Picture, kind: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """A question of `kind`, a key of `QUESTIONS`, and its answer of one or two lower-case words; None where the answer
    is not known. Few things are edible or vehicles: `Pool` balances what is asked."""
    answer = _ANSWERS[kind](picture)
    wordings = QUESTIONS[kind]
    return None if answer is None else (wordings[rng.integers(len(wordings))], answer)


class Pool:
    """Pictures, drawn so that no answer is worth guessing."""

    def __init__(self, pictures: list[Picture]) -> None:
        self.pictures = pictures
        self._by_answer: dict[str, dict[str, list[int]]] = {}
        for kind, answer_of in _ANSWERS.items():
            by: dict[str, list[int]] = {}
            for i, picture in enumerate(pictures):
                if (answer := answer_of(picture)) is not None:
                    by.setdefault(answer, []).append(i)
            self._by_answer[kind] = dict(sorted(by.items()))
        self._kept = self._shares_kept()

    def draw(self, kind: str, rng: np.random.Generator) -> int:
        """The index of a picture about which `kind`, a key of `QUESTIONS`, can be asked; answers are equally likely."""
        by = list(self._by_answer[kind].values())
        of_answer = by[rng.integers(len(by))]
        return of_answer[rng.integers(len(of_answer))]

    def exchanges(self, index: int, rng: np.random.Generator) -> list[tuple[str, str]]:
        """One question of each kind that can be asked about a picture, in random order; of yes and no the commoner is
        left out as often as makes both equal, where pictures are drawn for all kinds of questions alike."""
        picture, found = self.pictures[index], []
        for kind in map(str, rng.permutation(list(QUESTIONS))):
            qa = ask(picture, kind, rng)
            if qa is not None and rng.random() < self._kept.get((kind, qa[1]), 1.0):
                found.append(qa)
        return found

    def _shares_kept(self) -> dict[tuple[str, str], float]:
        """Of each fact's yes and no, the share that is asked."""
        often = np.zeros(len(self.pictures))  # a picture is drawn
        for by in self._by_answer.values():
            for of_answer in by.values():
                often[of_answer] += 1 / (len(by) * len(of_answer))
        kept: dict[tuple[str, str], float] = {}
        for fact in FACTS:
            mass = {answer: often[of_answer].sum() for answer, of_answer in self._by_answer[fact].items()}
            kept |= {(fact, answer): float(min(mass.values()) / mass[answer]) for answer in mass}
        return kept


# Sources


def _emojis(package: Path) -> Iterator[Picture]:
    ours = {emoji.base for emoji in shipped()}
    for emoji in packaged(package):
        if emoji.subcategory != FLAG and emoji.base not in ours and emoji.kind is not None:
            yield _picture(emoji.image, emoji.name, emoji.kind, "emoji", emoji.code)


def _stamps(root: Path) -> Iterator[Picture]:
    for path in filter(_bounded, _files(root, "stamps", "tuxpaint-stamps-default")):
        caption = path.with_suffix(".txt")
        name = caption.read_text(encoding="utf-8", errors="replace").split("\n")[0] if caption.is_file() else None
        folder = path.parent.relative_to(root).as_posix()
        yield _picture(_read(path), name, kind_of_folder(folder, STAMPS), "stamps", folder + path.stem)


def _clip_art(root: Path) -> Iterator[Picture]:
    """Files are called by what they show and then by their author, so that the first word counts."""
    by_folder: dict[str, list[Path]] = {}
    for path in _files(root, "clip art", "openclipart-png"):
        folder = path.parent.relative_to(root).as_posix()
        if kind_of_folder(folder, CLIP_ART) and _bounded(path):
            by_folder.setdefault(folder, []).append(path)
    for folder, paths in by_folder.items():
        for path in sorted(paths, key=lambda p: _digest(p.name))[:_MOST]:
            first = re.split("[^a-z]", path.stem.lower())[0]
            yield _picture(_read(path), first, kind_of_folder(folder, CLIP_ART), "clip art", folder + path.stem)


def _files(root: Path, what: str, package: str) -> list[Path]:
    found = sorted(root.rglob("*.png")) if root.is_dir() else []
    if not found:
        raise UsageError(
            f"{root}: the {what} of Debian's package {package} are not there; get them with `apt-get install {package}`"
        )
    return found


def _bounded(path: Path) -> bool:
    """Whether a PNG file claims a number of pixels, by its header, that may be decoded."""
    with path.open("rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20]) * int.from_bytes(header[20:24]) <= _PIXELS


def _read(path: Path) -> Image.Image:
    """RGBA, without transparent borders, about as large as is needed."""
    try:
        with Image.open(path) as picture:
            image = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: not a picture that can be read ({error}): install its package anew") from error
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((2 * SIZE, 2 * SIZE), reducing_gap=2.0)
    return image


def _picture(image: Image.Image, caption: str | None, kind: str | None, source: str, key: str) -> Picture:
    """In the middle of a ground of a soft grey that `key` fixes, since most of these are cut out."""
    shade = np.frombuffer(_digest(key)[:4], np.uint8).astype(int)
    ground = Image.new("RGB", (SIZE, SIZE), tuple(int(90 + shade[0] // 2 + c // 16) for c in shade[1:]))
    thing = ImageOps.contain(image, (SIZE - 4, SIZE - 4), Image.Resampling.LANCZOS)
    ground.paste(thing, ((SIZE - thing.width) // 2, (SIZE - thing.height) // 2), thing)
    return Picture(ground, _name(caption), kind, dominant(thing), source)


_ARTICLES = {"a", "an", "the", "some", "of", "pair"}


def _name(caption: str | None) -> str | None:
    """What a caption names in one or two words that a tiny model may say, without article, colour and size: "A brown
    hen." gives "hen"."""
    found = re.findall(r"[a-z]+", (caption or "").lower())
    left = [w for w in found if w not in _ARTICLES and w not in COLOURS and w not in {"little", "big", "small"}]
    return " ".join(left) if 1 <= len(left) <= 2 and set(left) <= _sayable() else None


@cache
def _sayable() -> frozenset[str]:
    return frozenset(_names())


def _names() -> list[str]:
    return (Path(__file__).parent / "picture_names.txt").read_text(encoding="utf-8").split()


def answers() -> list[str]:
    """All kinds, groups, colours, yes and no, and the words of names, sorted. No source needs to be there."""
    return sorted({*KINDS, *(k.group for k in KINDS.values()), *COLOURS, "yes", "no", *_names()})


def words() -> list[str]:
    """All words of the questions and answers, sorted; for a tokenizer."""
    texts = [*(q for wordings in QUESTIONS.values() for q in wordings), *answers()]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text)})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
