"""How long a run will take on this machine, measured on a few of the owner's own samples before crafting starts."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from arena.budget import Budget
from arena.data.sample import Sample, digest
from arena.engine.apart import Apart, Bounds
from arena.engine.job import Desk
from arena.engine.stages.base import Asking, read_made
from arena.engine.stages.release import refused_by
from arena.environment import allowed_threads
from arena.errors import ArenaError
from arena.owner.intake import Originals
from arena.owner.phases import CRAFTING, MEASURING, WRITING
from arena.owner.report import Request
from arena.owner.seen import Seen
from arena.plugins.base import Defense, Effort
from arena.plugins.spec import PluginSpec, load_model
from arena.release import read_release, write_release

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

TRIED = 4
"""Samples that are tried, at most."""

MOST = 2**23
"""Pixels that are tried at a time, at most, unless it is one picture."""

_PACE = "pace.json"


class DryRun(Exception):
    """Raised by whoever was told what a run will be and does not want it."""


@dataclass(frozen=True)
class Prepared:
    """A run of which everything is known and nothing is computed."""

    request: Request
    originals: Originals
    defense: PluginSpec
    surrogates: tuple[PluginSpec, ...]
    seen: Seen
    warnings: tuple[str, ...] = ()
    isolated: bool = True


@dataclass(frozen=True)
class Estimate:
    """Seconds by phase (see `arena.owner.phases`), and of one sample and surrogate: a forward pass, one with its
    gradient, both 0 where no surrogate is read. `known` is whether the defense says how much work it does."""

    seconds: dict[str, float]
    forward: float = 0.0
    gradient: float = 0.0
    known: bool = True

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())


Before = Callable[[Prepared], Estimate | None]
"""Asked before crafting starts; may raise `DryRun`."""


@dataclass(frozen=True)
class Pace(Asking):
    """What a pass of one sample takes at a surrogate, and how many of them the defense needs."""

    defense: PluginSpec
    budget: Budget
    sizes: tuple[tuple[int, int], ...]
    """Height and width of all pictures."""
    threads: int
    preload: ClassVar[tuple[str, ...]] = Asking.preload

    def plugins(self) -> dict[str, PluginSpec]:
        return {"model": self.model, "defense": self.defense}

    def run(self, desk: Desk) -> None:
        """Seconds of passes, and the number of each kind, as JSON."""
        import torch

        torch.set_num_threads(self.threads)
        lvlm, tried = load_model(self.model), desk.samples("train")
        refused = refused_by(lvlm, [(s.image.height, s.image.width) for s in tried])  # as crafting will, by name
        samples = [sample for index, sample in enumerate(tried) if index not in refused]
        effort = passes(cast(Defense, self.defense.create()), lvlm, self.sizes, self.budget)
        if not samples:
            effort = Effort()
        timed = {"forward": _forward, "gradient": _gradient, "text": _text}
        needed = {"forward": effort.forwards, "gradient": effort.gradients, "text": effort.texts}
        seconds = {
            name: _seconds(pass_, lvlm, samples) if samples else 0.0
            for name, pass_ in timed.items()
            if needed[name] or name != "text"
        }
        desk.write(_PACE, {"seconds": seconds, "needed": needed})


def passes(defense: Defense, lvlm: LVLM, sizes: Sequence[tuple[int, int]], budget: Budget) -> Effort:
    """What a defense does to each of pictures of these heights and widths; views of a picture are crafted through only
    where the surrogate leaves out a part of it."""
    from arena.lvlm.views import leaves_out

    effort = defense.effort(len(sizes), budget)
    if not getattr(defense.config, "views", False):
        return effort
    plain = type(defense)(defense.config.model_copy(update={"views": False}))
    without = plain.effort(len(sizes), budget).gradients
    refused = refused_by(lvlm, sizes)
    share = sum(index not in refused and leaves_out(lvlm, *size) for index, size in enumerate(sizes)) / len(sizes)
    return replace(effort, gradients=without + share * (effort.gradients - without))


def _forward(lvlm: LVLM, samples: Sequence[Sample]) -> None:
    import torch

    with torch.no_grad():
        lvlm.losses(lvlm.encode(samples))


def _gradient(lvlm: LVLM, samples: Sequence[Sample]) -> None:
    import torch

    from arena.lvlm.base import images_of

    images = [x.requires_grad_() for x in images_of(samples, lvlm.device)]
    torch.autograd.grad(lvlm.losses(lvlm.encode(samples, images)).sum(), images)
    if lvlm.device.type == "cuda":
        torch.cuda.synchronize()


def _text(lvlm: LVLM, samples: Sequence[Sample]) -> None:
    lvlm.perplexities([f"{s.question} {s.answer}" for s in samples])


def _seconds(run: Callable[[LVLM, Sequence[Sample]], None], lvlm: LVLM, samples: Sequence[Sample]) -> float:
    """Seconds a sample, after one run that warms up where it was quick."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        run(lvlm, samples)
        taken.append((time.perf_counter() - started) / len(samples))
        if sum(taken) * len(samples) > 20:  # a model for which warming up does not matter
            break
    return min(taken)


def estimate(prepared: Prepared) -> Estimate:
    """How long the phases of a run will take. Raises `ArenaError` where a surrogate cannot be loaded or run."""
    request, samples = prepared.request, prepared.originals.samples
    tried = _spread(samples)
    place = Path(tempfile.mkdtemp(prefix="arena-estimate-"))
    try:
        seconds, moved = _of_pictures(tried, place), 0.0
        scale = _pixels(samples) / _pixels(tried)
        seconds = {phase: value * scale for phase, value in seconds.items()}
        forward = gradient = 0.0
        known = not prepared.surrogates
        (place / "stage").mkdir()
        apart = Apart(
            place / "stage", place, Bounds(), isolated=prepared.isolated, threads=(threads := allowed_threads())
        )
        for number, model in enumerate(prepared.surrogates):
            given, made = apart.folder(f"given-{number}"), apart.folder(f"made-{number}")
            write_release(tried, given / "train")
            sizes = tuple((s.image.height, s.image.width) for s in samples)
            asking = Pace(model, prepared.defense, request.budget, sizes, threads)
            apart.compute(asking, given, made)
            pace, needed = _read(made)
            moved += len(samples) * sum(needed[name] * pace.get(name, 0.0) for name in needed)
            known = known or any(needed.values())
            forward, gradient = max(forward, pace["forward"]), max(gradient, pace["gradient"])
        seconds[CRAFTING] += moved
        return Estimate(seconds, forward, gradient, known)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _of_pictures(samples: Sequence[Sample], place: Path) -> dict[str, float]:
    """Seconds that reading, writing and measuring take for samples, each tried on the first one of them."""
    from arena.score.stealth import stealth

    first = samples[:1]
    factor = _pixels(samples) / _pixels(first)

    def took(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return (time.perf_counter() - started) * factor

    writing = took(lambda: write_release(first, place / "written"))
    reading = took(lambda: digest(read_release(place / "written")))
    stealth(first, first)  # loads what it needs
    measuring = took(lambda: stealth(first, first))
    # Pictures are handed over, read, written as drafts and read again around crafting, then written and checked.
    return {CRAFTING: writing + 4 * reading, WRITING: writing + 4 * reading, MEASURING: measuring}


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """Some of the samples, from the smallest picture to the largest; the one of middle size first."""
    ordered = sorted(samples, key=lambda s: s.image.width * s.image.height)
    count = max(1, min(TRIED, len(ordered), int(MOST // max(1, _pixels(ordered[-1:])))))
    places = [round((i + 0.5) * len(ordered) / count - 0.5) for i in range(count)]
    middle = len(places) // 2
    return [ordered[i] for i in (places[middle], *places[:middle], *places[middle + 1 :])]


def _pixels(samples: Sequence[Sample]) -> float:
    return math.fsum(s.image.width * s.image.height for s in samples)


def _read(made: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of passes and numbers of passes, as a surrogate's process wrote them; they may be a lie."""
    found = read_made(made / _PACE, "the time of its passes")
    seconds, needed = (_numbers(found.get(name)) if isinstance(found, dict) else {} for name in ("seconds", "needed"))
    if not {"forward", "gradient"} <= set(seconds) or set(needed) != {"forward", "gradient", "text"}:
        raise ArenaError("the time of a surrogate's passes was not measured")
    return seconds, needed


def _numbers(part: object) -> dict[str, float]:
    """A part of the file, if it holds numbers that can be times; else nothing."""
    fits = isinstance(part, dict) and all(isinstance(x, int | float) and 0 <= x < 1e9 for x in part.values())
    return dict(part) if isinstance(part, dict) and fits else {}
