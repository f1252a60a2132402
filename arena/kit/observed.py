"""What the kit runs in a plugin's own process: a stage of the engine that is watched, and questions to the plugin.

A stage is watched from within its process by Python's audit events: what the plugin's own code opens or reaches for
there is noted with the line that did it, also where the plugin passes over the refusal.
"""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar, cast

from pydantic import ValidationError

from arena.budget import Budget
from arena.engine.apart import ignore
from arena.engine.inside import THREADS, seed_globals
from arena.engine.job import Desk, Job, defender_world, write_json
from arena.engine.stages import Input, Stage
from arena.errors import ArenaError
from arena.isolation import surroundings
from arena.plugins import worlds
from arena.plugins.base import Defense, PluginConfig
from arena.plugins.registry import installed
from arena.plugins.settings import describe_setting
from arena.plugins.spec import PluginSpec, load_model

T = TypeVar("T")

SEEN, FACTS, VERDICT, READING = "seen.json", "facts.json", "verdict.json", "reading.json"
_MOST = 20
"""Events of a kind that are noted."""


@dataclass(frozen=True, kw_only=True)
class Question(Stage):
    """A stage whose artifact nobody keeps."""

    kind = "question"
    seconds_per_sample = 0.0
    label: str = ""
    size: int = 1

    def collect(self, job: Job, made: Path) -> None:
        raise NotImplementedError("nothing of it goes into a store")


@dataclass(frozen=True, kw_only=True)
class Observed(Question):
    """A stage of the engine, watched. `own` are the files and folders of the plugin's code; `globals_seed` is where the
    global generators start instead of where the stage has them start. With `afresh` the plugins run in an interpreter
    that is started for them, which hashes texts otherwise."""

    inner: Stage
    own: tuple[str, ...]
    globals_seed: int | None = None
    afresh: bool = False

    @property
    def network(self) -> bool:  # type: ignore[override]
        return self.inner.network

    @property
    def preload(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.inner.preload

    @property
    def plugin(self) -> str:
        return self.inner.plugin

    def global_seed(self) -> int | None:
        return self.inner.global_seed() if self.globals_seed is None else self.globals_seed

    def run(self, desk: Desk) -> None:
        if self.afresh:
            self._afresh(desk)
            return
        watch = Watch(self.own, list(self._writable(desk)), list(self._readable(desk)))
        vars(worlds)["_granted"] = watch.asked(worlds._granted)  # of this process alone
        sys.addaudithook(watch)
        before = _generators()
        try:
            self.inner.run(desk)
        finally:
            watch.over = True
            drawn = [name for name, state in _generators().items() if state != before[name]]
            desk.write(SEEN, {**watch.document(), "drawn": drawn})

    def _afresh(self, desk: Desk) -> None:
        # No pipe: what the plugin leaves running would hold it open.
        with tempfile.TemporaryFile(dir=os.environ["HOME"]) as said:
            done = subprocess.run(
                [sys.executable, "-c", "from arena.kit.observed import again; again()"],
                input=pickle.dumps((self.inner, self.global_seed(), desk.given, desk.made, desk.workspace)),
                env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.DEVNULL,
                stderr=said,
                check=False,
            )
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if done.returncode:
            raise ArenaError(text[-3000:] or f"exit code {done.returncode}")

    def _readable(self, desk: Desk) -> Iterator[Path]:
        yield from (*surroundings.readable(self.network), *self._writable(desk), desk.given)
        yield from (Path("/proc/self"), Path(f"/proc/{os.getpid()}"))
        for spec in self.inner.plugins().values():
            settings = {**spec.config, **spec.runtime}
            yield from surroundings.named(settings)
            for value in settings.values():
                if isinstance(value, str) and value.count("/") == 1:
                    yield surroundings.hub_cache() / f"models--{value.replace('/', '--')}"

    def _writable(self, desk: Desk) -> Iterator[Path]:
        yield from (desk.made, Path(os.environ["HOME"]), *surroundings.devices())
        if desk.workspace is not None:
            yield desk.workspace
        if self.network:
            yield from (surroundings.hub_home(), surroundings.hub_cache())


def _generators() -> dict[str, bytes]:
    """Where the global generators are from which a plugin can draw by accident. That of torch is not among them, from
    which every new layer draws."""
    import random

    import numpy as np

    return {
        "random": repr(random.getstate()).encode(),
        "numpy.random": repr(np.random.get_state(legacy=False)).encode(),
    }


def again() -> None:
    """Run the stage that standard input holds, in this interpreter."""
    stage, seed, given, made, workspace = pickle.loads(sys.stdin.buffer.read())  # noqa: S301  # from who started us
    import torch  # before the generators are put where they begin, as a stage's process finds it

    torch.set_num_threads(THREADS)
    for spec in stage.plugins().values():
        installed().get(spec.kind, spec.id).load()
    if seed is not None:
        seed_globals(Observed(inner=stage, own=(), globals_seed=seed), THREADS)
    stage.run(Desk(given, made, workspace, ignore))


class Watch:
    """Notes what the plugin's own code does: an audit hook."""

    def __init__(self, own: Sequence[str], writable: Sequence[Path], readable: Sequence[Path]) -> None:
        self._own = tuple(own)
        self._writable = [os.path.realpath(path) for path in writable]
        self._readable = [os.path.realpath(path) for path in readable]
        self.over = False
        self.refused: dict[tuple[str, str], str] = {}
        """What it may not do, and with what, by the line that does it."""
        self.wanted: dict[str, tuple[bool, str]] = {}
        """What it read of its world: whether it was granted, and the line."""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.over or len(self.refused) >= _MOST or not (deed := self._deed(event, arguments)):
            return
        if line := self._line(sys._getframe(1)):
            self.refused.setdefault(deed, line)

    def asked(self, granted: Callable[[T | None, str], T]) -> Callable[[T | None, str], T]:
        """The function through which worlds hand out what was granted, noting what is asked for."""

        def noting(value: T | None, name: str) -> T:
            self.wanted.setdefault(name, (value is not None, self._line(sys._getframe(1)) or ""))
            return granted(value, name)

        return noting

    def document(self) -> dict[str, Any]:
        """What was seen, as JSON."""
        refused = [[*deed, line] for deed, line in self.refused.items()]
        return {"refused": refused, "wanted": self.wanted, "left": _running()}

    def _deed(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str] | None:
        if event in ("open", "os.listdir", "os.scandir"):
            if not isinstance(arguments[0], str | bytes | os.PathLike):
                return None
            path = os.path.realpath(os.fsdecode(arguments[0]))
            flags = arguments[2] if event == "open" else 0
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return None if _below(path, self._writable) else ("writes", path)
            return ("reads", path) if os.path.lexists(path) and not self._may_read(path, event) else None
        if event in _FOLDER:
            path = os.path.realpath(_folder(arguments[_FOLDER[event]]) / os.fsdecode(arguments[0]))
            return None if _below(path, self._writable) else ("writes", path)
        if event in ("socket.connect", "socket.bind", "socket.sendto"):
            return "reaches for the network at", str(arguments[1])
        if event == "socket.getaddrinfo":
            return "reaches for the network at", str(arguments[0])
        return None

    def _may_read(self, path: str, event: str) -> bool:
        if event != "open" and path in map(os.path.realpath, surroundings.listed()):
            return True
        return _below(path, self._readable)

    def _line(self, frame: FrameType | None) -> str | None:
        """File and line of the innermost frame of the plugin's own code; none for what a package does while it is
        imported, whoever needs it."""
        while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
            if frame.f_code.co_filename.startswith(self._own):
                return f"{frame.f_code.co_filename}:{frame.f_lineno}"
            frame = frame.f_back
        return None


_FOLDER = {"os.mkdir": 2, "os.remove": 1, "os.rename": 2, "os.rmdir": 1}
"""Where the arguments of an event have the descriptor of the folder that its path is relative to."""


def _folder(descriptor: int) -> Path:
    """The folder of a descriptor; the current one where there is none."""
    return Path(f"/proc/self/fd/{descriptor}").readlink() if descriptor >= 0 else Path()


def _below(path: str, places: Sequence[str]) -> bool:
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


def _running() -> int | None:
    """How many processes this one has started that still run; None where the system does not say."""
    with suppress(OSError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # those that ended and nobody asked about
            continue
    try:
        threads = list(Path(f"/proc/{os.getpid()}/task").iterdir())
        return sum(len((thread / "children").read_text("ascii").split()) for thread in threads)
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True)
class Facts(Question):
    """What the plugin says of itself beyond its card."""

    preload: ClassVar[tuple[str, ...]] = ()

    about: PluginSpec

    def global_seed(self) -> None:
        return None

    def run(self, desk: Desk) -> None:
        cls = installed().get(self.about.kind, self.about.id).load()
        config, distinguished = cls.Config, None
        if issubclass(cls, Defense):
            own = cls.distinguished
            distinguished = None if own is Defense.distinguished else own.__doc__ or "something that it does not name"
        desk.write(
            FACTS,
            {
                "doc": cls.__dict__.get("__doc__"),
                "version": repr(cls.version) if not isinstance(cls.version, str) else cls.version,
                "distinguished": distinguished,
                "settings": [describe_setting(name, about) for name, about in config.model_fields.items()],
                "config": _round_trip(config, {**self.about.config, **self.about.runtime}),
                "small": config.small(),
            },
        )


def _round_trip(kind: type[PluginConfig], stated: Mapping[str, Any]) -> str | None:
    """What is wrong with a plugin's settings, as its card states them in JSON, when they are read back."""
    for what, values in (("its own settings", stated), ("its values for a dry run", {**stated, **kind.small()})):
        try:
            config = kind.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            return f"{what} are refused when they are read back: {name} = {first['input']!r}: {first['msg']}"
        said = {**config.identity(), **config.runtime()}
        if changed := [name for name, value in said.items() if name in values and value != values[name]]:
            return (
                f"{what} come back as other ones: {changed[0]} = {said[changed[0]]!r} instead of {values[changed[0]]!r}"
            )
    return None


@dataclass(frozen=True, kw_only=True)
class Distinguished(Question):
    """Whether a release has what the defense says of its releases."""

    defense: PluginSpec
    budget: Budget
    surrogates: tuple[PluginSpec, ...] | None
    seed: int | None
    train: Input = field(default=Input(""))

    def global_seed(self) -> int:
        return self.seed or 0

    def run(self, desk: Desk) -> None:
        specs = self.surrogates
        models = None if specs is None else lambda: tuple(map(load_model, specs))
        world = defender_world(desk, self.budget, self.seed, models)
        defense = cast(Defense, self.defense.create())
        found = defense.distinguished(desk.samples("train"), desk.samples("released"), world)
        if not (found is None or isinstance(found, str)):
            raise ArenaError(f"distinguished returned a {type(found).__name__}: return None or a sentence")
        write_json(desk.made / VERDICT, found)


@dataclass(frozen=True, kw_only=True)
class Reading(Question):
    """What a model makes of samples: losses, whether their gradient reaches the pictures, and answers."""

    model: PluginSpec

    def run(self, desk: Desk) -> None:
        import torch

        from arena.lvlm.base import LVLM, images_of

        lvlm, samples = load_model(self.model), desk.samples("train")
        if not isinstance(lvlm, LVLM):
            raise ArenaError(f"load returned a {type(lvlm).__name__}: return an arena.lvlm.base.LVLM")
        losses: list[float] = []
        reached = True
        for sample in samples:  # one at a time: padding is no part of what is asked
            (image,) = images_of([sample], lvlm.device)
            batch = lvlm.encode([sample], [image.requires_grad_()])
            loss = lvlm.losses(batch).sum()
            (gradient,) = torch.autograd.grad(loss, [image], allow_unused=True)
            losses.append(float(loss))
            reached = reached and gradient is not None and bool(gradient.abs().sum() > 0)
        answers = lvlm.generate(samples)
        if len(answers) != len(samples) or not all(isinstance(answer, str) for answer in answers):
            raise ArenaError(f"generate gave {len(answers)} answers for {len(samples)} samples: give one text each")
        finite = all(map(math.isfinite, losses))
        content = {"losses": losses if finite else None, "reached": reached, "answers": answers}
        desk.write(READING, {**content, "training": bool(lvlm.model.training)})
