"""Pictures that others made: what is read of the sources, what is asked, and what is said where one is missing."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from arena.data.colour_names import COLOURS
from arena.data.embedded.emoji.build import chosen, write
from arena.data.embedded.emoji.dataset import COUNTS
from arena.data.embedded.emoji.kinds import ASKED, KINDS
from arena.data.embedded.emoji.noto import Emoji, packaged, shipped
from arena.errors import UsageError
from arena.lvlm.zoo import tokenizer
from arena.lvlm.zoo.pictures import QUESTIONS, Picture, Pool, Sources, ask, pretraining_pictures, words

EMOJIS = {
    "1F436": ("DOG FACE", "animal-mammal"),  # in the dataset, and so are
    "1F1EB-1F1F7": ("France Flag", "country-flag"),
    "1F9D1-200D-1F680": ("ASTRONAUT", "person-role"),  # also with a skin tone that does not come with the arena
    "1F9D1-200D-1F527": ("MECHANIC", "person-role"),
    "1F42B": ("BACTRIAN CAMEL", "animal-mammal"),
    "27A1-FE0F": ("BLACK RIGHTWARDS ARROW", "arrow"),
}
TONE = "1F3FD"
SAID = ("yes", "no")


def square(colour: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture with transparent borders."""
    picture = Image.new("RGBA", size)
    ImageDraw.Draw(picture).rectangle((10, 10, size[0] - 11, size[1] - 11), fill=colour)
    return picture


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Small ones, laid out as the published ones are."""
    root = tmp_path_factory.mktemp("sources")
    package, stamps, clip_art = root / "package", root / "stamps", root / "clip art"
    images = package / "img" / "google" / "64"
    images.mkdir(parents=True)
    entries = []
    for order, (code, (name, subcategory)) in enumerate(EMOJIS.items()):
        toned = f"{code.split('-')[0]}-{TONE}" + code.removeprefix(code.split("-")[0])
        variants = (
            {TONE: {"unified": toned, "image": "t.png", "has_img_google": True}} if subcategory == "person-role" else {}
        )
        entries.append(
            {
                **{"unified": code, "name": name, "short_name": "x", "subcategory": subcategory},
                **{"sort_order": order, "image": f"{order}.png", "has_img_google": True, "skin_variations": variants},
            }
        )
        square("red").save(images / f"{order}.png")
    square("#784628").save(images / "t.png")
    (package / "emoji.json").write_text(json.dumps(entries[::-1]))
    with tarfile.open(root / "package.tgz", "w:gz") as archive:
        archive.add(package, "package")
    for folder, name, caption, colour in (
        ("animals/birds/cartoon", "tux", "A little yellow penguin!", "yellow"),
        ("animals/mammals/aquatic", "orca", "The whale that swam around the world.", "black"),
        ("nowhere", "thing", None, "green"),
    ):
        (stamps / folder).mkdir(parents=True)
        square(colour, (80, 40)).save(stamps / folder / f"{name}.png")
        if caption:
            (stamps / folder / f"{name}.txt").write_text(f"{caption}\nfr.utf8=Oiseau\n")
    for file, colour in (
        ("transportation/boating/ship_ralf_01.png", "blue"),
        ("transportation/boating/qwxz_01.png", "blue"),
        ("signs_and_symbols/flags/europe/france.png", "blue"),
    ):
        (clip_art / file).parent.mkdir(parents=True, exist_ok=True)
        square(colour, (300, 200)).save(clip_art / file)
    bomb = bytearray((clip_art / "transportation/boating/qwxz_01.png").read_bytes())
    bomb[16:24] = (15_000).to_bytes(4) * 2
    (clip_art / "transportation/boating/zz_huge.png").write_bytes(bomb)
    return Sources(root / "package.tgz", stamps, clip_art)


@pytest.fixture(scope="module")
def pictures(sources: Sources) -> list[Picture]:
    return pretraining_pictures(sources)


def test_what_is_known_of_pictures(pictures: list[Picture]) -> None:
    assert [(p.source, p.name, p.kind, p.group, p.colour) for p in pictures] == [
        ("emoji", "mechanic", "worker", "people", "red"),
        ("emoji", "mechanic", "worker", "people", "brown"),
        ("emoji", None, "mammal", "nature", "red"),  # "bactrian camel" is not said
        ("emoji", None, "arrow", "symbol", "red"),
        ("stamps", "penguin", "bird", "nature", "yellow"),
        ("stamps", None, "sea animal", "nature", "black"),
        ("stamps", None, None, None, "green"),
        ("clip art", "ship", "vehicle", "travel", "blue"),
        ("clip art", None, "vehicle", "travel", "blue"),
    ]
    assert {(p.image.size, p.image.mode) for p in pictures} == {((64, 64), "RGB")}
    penguin = np.asarray(pictures[4].image)
    assert tuple(penguin[32, 3]) == (255, 255, 0), "the thing is as large as fits"
    assert tuple(penguin[5, 32]) != (255, 255, 0), "and keeps its shape"


def test_nothing_of_the_datasets_is_trained_on(sources: Sources) -> None:
    ours = {emoji.base for emoji in shipped()}
    everything = list(packaged(sources.emoji))
    assert [e.code for e in everything if e.base in ours or e.kind is None] == [
        *("1F436", "1F1EB-1F1F7", "1F9D1-200D-1F680", f"1F9D1-{TONE}-200D-1F680")
    ]
    assert len(everything) == len(EMOJIS) + 2 and not any(e.code == everything[3].code for e in shipped())


def test_the_order_and_the_bytes_are_always_the_same(pictures: list[Picture], sources: Sources) -> None:
    again = pretraining_pictures(Sources(sources.emoji.with_name("package"), sources.stamps, sources.clip_art))
    assert [(p.source, p.image.tobytes()) for p in again] == [(p.source, p.image.tobytes()) for p in pictures]


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("emoji", r"`npm pack emoji-datasource-google@16\.0\.0`"),
        ("stamps", "`apt-get install tuxpaint-stamps-default`"),
        ("clip_art", "`apt-get install openclipart-png`"),
    ],
)
def test_a_source_that_is_not_there_says_how_to_get_it(
    sources: Sources, tmp_path: Path, missing: str, remedy: str
) -> None:
    named = {**vars(sources), missing: tmp_path / "gone"}
    with pytest.raises(UsageError, match=f"gone: .*{remedy}"):
        pretraining_pictures(Sources(**named))


def test_a_package_that_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"x\.tgz: no npm package can be read"):
        list(packaged(tmp_path / "x.tgz"))
    with tarfile.open(tmp_path / "y.tgz", "w:gz"):
        pass
    with pytest.raises(UsageError, match=r"y\.tgz: no emoji\.json in it"):
        list(packaged(tmp_path / "y.tgz"))


# Questions


def some(kind: str, colour: str | None = None, name: str | None = None) -> Picture:
    return Picture(Image.new("RGB", (64, 64)), name, kind, colour, "stamps")


def test_questions_are_answered_by_what_is_known() -> None:
    rng = np.random.default_rng(0)
    duck = some("bird", "yellow", "duck")
    said = {kind: ask(duck, kind, rng) for kind in QUESTIONS}
    assert {kind: found and found[1] for kind, found in said.items()} == {
        **{"name": "duck", "kind": "bird", "group": "nature", "colour": "yellow"},
        **{"alive": "yes", "edible": None, "vehicle": "no"},
    }
    assert all(found[0] in QUESTIONS[kind] for kind, found in said.items() if found)


def test_no_answer_of_the_pool_is_worth_guessing() -> None:
    rng = np.random.default_rng(0)
    pool = Pool([*(some("tool") for _ in range(30)), *(some("vehicle") for _ in range(6)), some("sweet", "red")])
    drawn = Counter(pool.pictures[pool.draw("kind", rng)].kind for _ in range(600))
    assert all(150 < drawn[kind] < 250 for kind in ("tool", "vehicle", "sweet"))
    asked: Counter[tuple[str, str]] = Counter()
    for _ in range(500):
        for kind in QUESTIONS:
            if kind != "name":  # nothing here has one
                asked.update(pool.exchanges(pool.draw(kind, rng), rng))
    for fact in ("vehicle", "edible"):
        said = Counter({a: sum(n for (q, b), n in asked.items() if q in QUESTIONS[fact] and a == b) for a in SAID})
        assert 0.85 < said["yes"] / said["no"] < 1.18, fact
    assert sum(n for (q, _), n in asked.items() if q in QUESTIONS["kind"]) == 3000


def test_the_words_are_all_that_is_said(pictures: list[Picture]) -> None:
    known, rng = set(words()), np.random.default_rng(0)
    pool = Pool(pictures)
    for i in range(len(pictures)):
        for question, answer in pool.exchanges(i, rng):
            assert set(question.rstrip("?").split()) | set(answer.split()) <= known
            assert 1 <= len(answer.split()) <= 2


def test_the_words_include_the_answers_of_the_dataset() -> None:
    said = {
        *COLOURS,
        *COUNTS,
        "yes",
        "no",
        *(w for kind in ASKED for text in (kind, KINDS[kind].group) for w in text.split()),
    }
    assert said <= {*words(), *tokenizer.words()}


# The archive


def test_the_archive_is_made_by_the_rule_alone(tmp_path: Path) -> None:
    """From what is in it comes what is in it, byte by byte."""
    ours = list(shipped())
    for name in ("one.zip", "two.zip"):
        write(ours[:40], tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    found = chosen([*ours[:200], Emoji("2B06-FE0F", "upwards black arrow", "arrow", b"")])
    assert 0 < len(found) < 200 and not any(e.kind == "arrow" for e in found)
    assert {e.base for e in ours[:200]} - {e.base for e in found}, "a share is left out"
