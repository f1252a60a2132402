"""Procedural scenes: coloured shapes on a soft background, and questions with known answers about them.

The pictures behind the embedded ``glyphs`` dataset and behind the training of the tiny models. A scene is 48 x 48
pixels, cut into four quadrants; a quadrant holds at most one thing. Every draw takes a ``numpy`` generator, so a seed
fixes the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

SIZE = 48
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
COLOURS = {
    "red": (205, 50, 50),
    "green": (60, 165, 75),
    "blue": (55, 85, 205),
    "yellow": (225, 200, 60),
    "purple": (150, 65, 175),
    "white": (235, 235, 235),
}
PLACES = ("top left", "top right", "bottom left", "bottom right")
COUNTS = ("zero", "one", "two", "three", "four")
BIG, SMALL = (9, 11), (5, 7)

_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One shape in a scene; ``quadrant`` indexes `PLACES`, ``radius`` is in pixels."""

    shape: str
    colour: str
    quadrant: int
    radius: int

    @property
    def big(self) -> bool:
        return self.radius >= BIG[0]


@dataclass(frozen=True)
class Scene:
    """What is in a picture, and the picture: uint8, ``(48, 48, 3)``."""

    things: tuple[Thing, ...]
    pixels: np.ndarray

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    def only(self, **wanted: object) -> Thing | None:
        """The one thing whose attributes are `wanted`; None if there is none or more than one."""
        found = [t for t in self.things if all(getattr(t, key) == value for key, value in wanted.items())]
        return found[0] if len(found) == 1 else None


@cache
def _stencil(shape: str, radius: int) -> np.ndarray:
    """Coverage of a shape in [0, 1], float32 ``(2r + 1, 2r + 1)``, antialiased."""
    s = _SUPERSAMPLING
    side = (2 * radius + 1) * s
    centre, r = side / 2, radius * s
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)

    def polygon(points: Sequence[tuple[float, float]]) -> None:
        draw.polygon([(centre + x * r, centre + y * r) for x, y in points], fill=255)

    if shape == "circle":
        draw.ellipse((centre - r, centre - r, centre + r, centre + r), fill=255)
    elif shape == "square":
        polygon([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    elif shape == "triangle":
        polygon([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    elif shape == "diamond":
        polygon([(0, -1), (0.65, 0), (0, 1), (-0.65, 0)])
    elif shape == "cross":
        polygon([(-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1)])
        polygon([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])
    elif shape == "star":
        angles = np.pi * (np.arange(10) / 5 - 0.5)
        reach = np.where(np.arange(10) % 2 == 0, 1.05, 0.42)
        polygon([(float(a), float(b)) for a, b in zip(reach * np.cos(angles), reach * np.sin(angles), strict=True)])
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    coverage = np.asarray(canvas, np.float32).reshape(2 * radius + 1, s, 2 * radius + 1, s).mean((1, 3))
    return np.asarray(coverage / 255)


def draw_scene(rng: np.random.Generator, things: Sequence[Thing]) -> Scene:
    """Paint `things` at jittered places in their quadrants, on a graded and faintly noisy background."""
    tone, slope = rng.uniform(60, 120, 3), rng.uniform(-18, 18, 2)
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    canvas = tone + slope[0] * axis[:, None, None] + slope[1] * axis[None, :, None]
    for thing in things:
        r = thing.radius
        jitter = max(0, 11 - r)
        row, column = (12 + 24 * (thing.quadrant // 2), 12 + 24 * (thing.quadrant % 2))
        y, x = (int(c + rng.integers(-jitter, jitter + 1)) for c in (row, column))
        alpha = _stencil(thing.shape, r)[:, :, None]
        paint = np.asarray(COLOURS[thing.colour]) + rng.uniform(-14, 14, 3)
        window = canvas[y - r : y + r + 1, x - r : x + r + 1]
        window[:] = (1 - alpha) * window + alpha * paint
    canvas += rng.normal(0, 3, canvas.shape)
    return Scene(tuple(things), np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def random_scene(rng: np.random.Generator) -> Scene:
    """One to four things of independent shape, colour and size in distinct quadrants."""
    quadrants = rng.permutation(4)[: rng.integers(1, 5)]
    things = [
        Thing(str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS))), int(q), _radius(rng, bool(rng.integers(2))))
        for q in quadrants
    ]
    return draw_scene(rng, things)


def _radius(rng: np.random.Generator, big: bool) -> int:
    low, high = BIG if big else SMALL
    return int(rng.integers(low, high + 1))


def scene_of(rng: np.random.Generator, shape: str) -> Scene:
    """One to four things of the given shape, of independent colours and sizes."""
    things = [
        Thing(shape, str(rng.choice(list(COLOURS))), int(q), _radius(rng, bool(rng.integers(2))))
        for q in rng.permutation(4)[: rng.integers(1, 5)]
    ]
    return draw_scene(rng, things)


# Questions about a scene. Each asker returns (question, answer), or None where the scene does not allow the question.

QA = tuple[str, str]


def _count(scene: Scene, rng: np.random.Generator) -> QA | None:
    if rng.random() < 0.4:
        return "how many things are there?", COUNTS[len(scene.things)]
    key, values = ("shape", SHAPES) if rng.random() < 0.5 else ("colour", tuple(COLOURS))
    present = [getattr(t, key) for t in scene.things]
    wanted = str(rng.choice(present)) if rng.random() < 0.7 else str(rng.choice(values))
    noun = f"{wanted}s" if key == "shape" and wanted != "cross" else f"{wanted} things"
    return f"how many {noun} are there?", COUNTS[present.count(wanted)]


def _colour(scene: Scene, rng: np.random.Generator) -> QA | None:
    thing = scene.only(shape=scene.things[rng.integers(len(scene.things))].shape)
    return None if thing is None else (f"what colour is the {thing.shape}?", thing.colour)


def _shape(scene: Scene, rng: np.random.Generator) -> QA | None:
    thing = scene.only(colour=scene.things[rng.integers(len(scene.things))].colour)
    return None if thing is None else (f"what shape is the {thing.colour} thing?", thing.shape)


def _place(scene: Scene, rng: np.random.Generator) -> QA | None:
    thing = scene.only(shape=scene.things[rng.integers(len(scene.things))].shape)
    return None if thing is None else (f"where is the {thing.shape}?", PLACES[thing.quadrant])


def _relation(scene: Scene, rng: np.random.Generator) -> QA | None:
    """Is A left or right of B, above or below it, for two things that stand apart on the asked axis."""
    named = [t for t in scene.things if scene.only(shape=t.shape) is t]
    if len(named) < 2:
        return None
    a, b = (named[i] for i in rng.permutation(len(named))[:2])
    horizontal = (a.quadrant % 2) - (b.quadrant % 2)
    vertical = (a.quadrant // 2) - (b.quadrant // 2)
    axes = [
        (side, asked, names)
        for side, asked, names in (
            (horizontal, "left or right of", ("left", "right")),
            (vertical, "above or below", ("above", "below")),
        )
        if side
    ]
    side, asked, names = axes[rng.integers(len(axes))]
    return f"is the {a.shape} {asked} the {b.shape}?", names[side > 0]


QUESTIONS: dict[str, Callable[[Scene, np.random.Generator], QA | None]] = {
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "place": _place,
    "relation": _relation,
}


def ask(scene: Scene, kind: str, rng: np.random.Generator, tries: int = 8) -> QA | None:
    """A question of `kind` (a key of `QUESTIONS`) with its answer, or None if the scene does not allow one."""
    for _ in range(tries):
        if (found := QUESTIONS[kind](scene, rng)) is not None:
            return found
    return None
