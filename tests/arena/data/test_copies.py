"""Pictures that are the same, or look it, are found; others are not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from skimage import data as photographs
from sklearn.datasets import load_sample_image

from arena.data.copies import HASH_BITS, LEVELS, Sharing, look, shared, sharing
from arena.data.embedded.digits import Digits
from arena.data.embedded.glyphs import Glyphs
from arena.data.sample import Sample

PHOTOS = {
    **{name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")},
    **{name: Image.fromarray(getattr(photographs, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")},
    **{name: Image.fromarray(getattr(photographs, name)()) for name in ("camera", "moon", "coins", "page")},
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return decoded.copy()


def noisy(image: Image.Image, levels: int) -> Image.Image:
    values = np.asarray(image).astype(int)
    noise = np.random.default_rng(0).integers(-levels, levels + 1, values.shape)
    return Image.fromarray(np.clip(values + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("name", PHOTOS)
def test_a_copy_of_a_photograph_is_near(name: str) -> None:
    photo = PHOTOS[name]
    own = look(photo)
    for copy in (
        jpeg(photo, 95),
        jpeg(photo, 30),
        noisy(photo, 8),
        photo.resize((photo.width // 2, photo.height // 2)),
    ):
        other = look(copy)
        assert own.near(other) and own.digest != other.digest
    assert look(photo.copy()).digest == own.digest


@pytest.mark.parametrize("name", PHOTOS)
def test_another_picture_is_not(name: str) -> None:
    photo = PHOTOS[name]
    own = look(photo)
    others = [other for key, other in PHOTOS.items() if key != name]
    changed = [photo.transpose(turn) for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180)]
    left, top = photo.width // 10, photo.height // 10
    changed += [photo.crop((left, top, photo.width, photo.height)), ImageEnhance.Brightness(photo).enhance(1.2)]
    for other in (*others, *changed):
        assert not own.near(look(other))


def test_flat_pictures_and_small_scenes_are_told_apart() -> None:
    """Where signs of frequencies say nothing, colours do."""
    flat = [Image.new("RGB", (40, 30), colour) for colour in ((200, 200, 200), (190, 200, 200), (0, 0, 0))]
    looks = [look(image) for image in flat]
    assert not looks[0].near(looks[1]) and not looks[0].near(looks[2])
    for dataset in (Glyphs(), Digits()):
        samples = dataset.load(150, 0, 0, seed=1).train
        found = shared(samples, near=True)
        assert len(set(found.delta)) == 150 and not found.resized


def test_pages_of_one_form_are_told_apart() -> None:
    """A template filled in otherwise is another picture, with another answer."""

    def page(texts: str) -> Image.Image:
        image = Image.new("L", (420, 300), 255)
        draw = ImageDraw.Draw(image)
        for row in range(6):
            draw.rectangle((20, 20 + 45 * row, 400, 55 + 45 * row), outline=0)
            draw.text((30, 28 + 45 * row), f"{texts[row]} " * 24, fill=0)
        return image

    assert not look(page("abcdef")).near(look(page("mMwWiI")))


def test_thresholds_have_room_on_both_sides() -> None:
    own = look(PHOTOS["china"])
    bits = own.hash
    for flipped, near in ((HASH_BITS, True), (HASH_BITS + 1, False)):
        other = replace(own, hash=bits ^ ((1 << flipped) - 1))
        assert own.near(other) == near
    for shift, near in ((LEVELS - 0.01, True), (LEVELS + 0.01, False)):
        assert own.near(replace(own, small=own.small + shift)) == near
    assert not own.near(replace(own, grey=True))


def samples(*images: Image.Image) -> list[Sample]:
    return [Sample(str(i), image, "what?", "it") for i, image in enumerate(images)]


def test_who_shares_what() -> None:
    a, b = PHOTOS["china"], PHOTOS["flower"]
    again, small = jpeg(a, 60), a.resize((320, 213))
    given = samples(a, b, a.copy(), again, b.copy(), small)
    near, exact = shared(given, near=True), shared(given, near=False)
    assert near.picture == exact.picture == (0, 1, 0, 2, 1, 3)
    assert near.delta == (0, 1, 0, 2) and exact.delta == (0, 1, 2, 3)
    assert near.of_sample == (0, 1, 0, 0, 1, 2) and near.first == (0, 1, 5)
    assert near.resized == ((3, 0),) and exact.resized == ()
    assert sharing(look(s.image) for s in given) == near


def test_parts_keep_what_is_shared_together() -> None:
    # pictures 0 to 3; 1 has three samples, 3 is a near copy of 0
    found = Sharing((0, 1, 2, 1, 3, 1), (0, 1, 2, 0))
    sizes = [10] * 6
    assert found.parts(sizes, 3, 100) == [[0, 4], [1, 3, 5], [2]]
    assert found.parts(sizes, 2, 100) == [[0, 4], [1, 3], [5, 2]]
    assert found.parts(sizes, 6, 30) == [[0, 4, 1, 3, 5], [2]]
    assert found.parts([10, 99, 10, 99, 10, 99], 6, 50) == [[0, 4], [1, 3, 5], [2]]
    assert Sharing((0, 1, 2), (0, 1, 2)).parts([5, 5, 5], 2, 100) == [[0, 1], [2]]
    local = found.local([0, 4, 1, 3])
    assert (local.picture, local.shows, local.delta, local.deltas) == ((0, 1, 2, 2), (0, 1, 2), (0, 0, 1), (0, 1))
