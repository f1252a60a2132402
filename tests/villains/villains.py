"""Plugins of a made-up third party that are careless or cheat: a deed a setting. What they may not find is named in a
module `targets` that a test puts beside them."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from PIL import Image
from pydantic import Field, field_validator
from toys import ANSWERS, ToyData, ToyLVLM, ToyModel

from arena.data.sample import Sample, Splits, digest
from arena.engine.job import Desk
from arena.plugins.base import (
    Attack,
    AttackerWorld,
    DefenderWorld,
    Defense,
    Draft,
    PluginConfig,
    setting,
)

Samples = Sequence[Sample]
DEEDS: dict[str, Callable[[Samples, str], Any]] = {}
"""What a plugin returns, or does and returns None, by its name: of the samples it is handed and the setting `note`."""


class Leak(Exception):
    """A plugin found what it must not know."""


class Deed(PluginConfig):
    deed: str = "nothing"
    note: str = Field("", description="whatever the deed wants to know")


class Unchanged(Defense):
    """Changes nothing."""

    def protect(self, samples: Samples, world: DefenderWorld) -> Iterable[Draft]:
        return [Draft(s.image, s.question) for s in samples]


class VillainDefense(Unchanged):
    """A defense that does its deed."""

    Config = Deed
    config: Deed

    def protect(self, samples: Samples, world: DefenderWorld) -> Iterable[Draft]:
        drafts = DEEDS[self.config.deed](samples, self.config.note)
        return super().protect(samples, world) if drafts is None else drafts


class VillainAttack(Attack):
    """An attack that does its deed."""

    Config = Deed
    config: Deed

    def purify(self, samples: Samples, world: AttackerWorld) -> Iterable[Sample]:
        left = DEEDS[self.config.deed](samples, self.config.note)
        return samples if left is None else None if left is NOTHING else left


NOTHING = object()
"""What a plugin returns that returns nothing."""


def deed(function: Callable[[Samples, str], Any]) -> Callable[[Samples, str], Any]:
    DEEDS[function.__name__.strip("_").replace("_", "-")] = function
    return function


def frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def desk() -> Desk:
    """Where its stage reads and writes, which nobody handed to the plugin."""
    return next(v for frame in frames() for v in list(frame.f_locals.values()) if isinstance(v, Desk))


def home() -> Path:
    return Path(os.environ["HOME"])


def drafts(samples: Samples) -> list[Draft]:
    return [Draft(s.image, s.question) for s in samples]


def loud(samples: Samples) -> list[Draft]:
    return [Draft(Image.fromarray(np.asarray(s.image) + 30), s.question) for s in samples]


def patch(name: str, value: object) -> None:
    module, _, attribute = name.partition(":")
    setattr(importlib.import_module(module), attribute, value)


def hide(samples: Samples) -> None:
    """Have the stage find the samples as they were."""
    before = digest(samples)
    patch("arena.engine.stages.release:digest", lambda samples: before)


@deed
def nothing(samples: Samples, note: str) -> None:
    pass


# What is handed over is a copy, and what comes back is checked


@deed
def paint(samples: Samples, note: str) -> list[Draft]:
    for sample in samples:
        sample.image.paste(128, (0, 0, *sample.image.size))
    return drafts(samples)


@deed
def paint_and_hide(samples: Samples, note: str) -> list[Draft]:
    hide(samples)
    return paint(samples, note)


@deed
def answer(samples: Samples, note: str) -> None:
    for sample in samples:
        object.__setattr__(sample, "answer", "wrong")
        object.__setattr__(sample, "id", f"mine-{sample.id}")


@deed
def answer_and_hide(samples: Samples, note: str) -> None:
    hide(samples)
    answer(samples, note)


@deed
def patch_the_judge(samples: Samples, note: str) -> list[Draft]:
    from arena.score.answers import CONVENTIONS

    for name in list(CONVENTIONS):
        CONVENTIONS[name] = lambda said, sample: False
    patch("arena.budget:check", lambda *arguments: None)
    patch("arena.engine.stages.release:check", lambda *arguments: None)
    patch("arena.data.sample:Sample", dict)
    return loud(samples)


def once_written(change: Callable[[Path], None]) -> None:
    """Let something be done to the folder of drafts after they were written."""
    from arena.engine.job import Desk

    write = Desk.write

    def tampered(desk: Desk, name: str, content: Any) -> None:
        change(desk.made / "drafts")
        write(desk, name, content)

    setattr(Desk, "write", tampered)  # noqa: B010


@deed
def fewer_drafts(samples: Samples, note: str) -> list[Draft]:
    def cut(folder: Path) -> None:
        questions = folder / "questions.json"
        questions.write_text(json.dumps(json.loads(questions.read_text("utf-8"))[:-1]), encoding="utf-8")
        sorted(folder.glob("*.png"))[-1].unlink()

    once_written(cut)
    return drafts(samples)


@deed
def larger_pictures(samples: Samples, note: str) -> list[Draft]:
    once_written(lambda folder: Image.new("L", (64, 64)).save(folder / "000000.png"))
    return drafts(samples)


@deed
def freeze(samples: Samples, note: str) -> None:
    import torch

    torch.set_grad_enabled(False)


# Ends


@deed
def exit_with(samples: Samples, note: str) -> NoReturn:
    os._exit(int(note))


@deed
def segfault(samples: Samples, note: str) -> None:
    ctypes.string_at(0)


@deed
def abort(samples: Samples, note: str) -> None:
    os.abort()


@deed
def signal_itself(samples: Samples, note: str) -> None:
    os.kill(os.getpid(), getattr(signal, note))
    time.sleep(10)


@deed
def raise_(samples: Samples, note: str) -> NoReturn:
    raise error(note)


class Odd(BaseException):
    """Of no kind."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text today")


def error(name: str) -> BaseException:
    from arena.errors import ChangedSource, UsageError
    from arena.store.local import MissingArtifact, StoreError

    made: dict[str, Callable[[], BaseException]] = {
        "KeyboardInterrupt": KeyboardInterrupt,
        "SystemExit": SystemExit,
        "SystemExit with a text": lambda: SystemExit("good bye"),
        "GeneratorExit": GeneratorExit,
        "Odd": lambda: Odd("out of the ordinary"),
        "Unprintable": Unprintable,
        "half of a surrogate pair": lambda: ValueError("half \ud800 and \x1b[31mred"),
        "50 MB": lambda: ValueError("long " * 10_000_000),
        "UsageError": lambda: UsageError("the suite is wrong, says the plugin"),
        "StoreError": lambda: StoreError("the store is unusable, says the plugin"),
        "MissingArtifact": lambda: MissingArtifact("0" * 64),
        "ChangedSource": lambda: ChangedSource("the source has changed, says the plugin"),
        "ENOSPC": lambda: OSError(28, "No space left on device"),
        "EACCES": lambda: PermissionError(13, "Permission denied"),
        "BrokenPipeError": lambda: BrokenPipeError(32, "Broken pipe"),
        "RecursionError": RecursionError,
    }
    return made[name]()


@deed
def recurse(samples: Samples, note: str) -> None:
    recurse(samples, note)


@deed
def never_ending_thread(samples: Samples, note: str) -> None:
    threading.Thread(target=time.sleep, args=(10_000,)).start()


@deed
def close_files(samples: Samples, note: str) -> None:
    os.closerange(0, 64)


@deed
def change_folder(samples: Samples, note: str) -> None:
    os.chdir("/")
    sys.path[:] = []
    os.environ.clear()


@deed
def print_much(samples: Samples, note: str) -> NoReturn:
    sys.stdout.write("the beginning\n")
    for _ in range(100):
        sys.stdout.write("much " * 200_000)
    sys.stdout.write("\nthe end")
    sys.stdout.flush()
    os._exit(3)


# Without end


@deed
def hang(samples: Samples, note: str) -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@deed
def hang_unwatched(samples: Samples, note: str) -> None:
    import faulthandler

    faulthandler.cancel_dump_traceback_later()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


@deed
def stop_itself(samples: Samples, note: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@deed
def samples_without_end(samples: Samples, note: str) -> Iterator[Sample]:
    while True:
        yield replace(samples[0], id=str(time.monotonic_ns()), image=Image.new("L", (4000, 4000)))


@deed
def memory(samples: Samples, note: str) -> None:
    held = []
    while True:
        held.append(bytearray(2**24))


@deed
def shared_memory(samples: Samples, note: str) -> None:
    import mmap

    held = []
    while True:
        held.append(mmap.mmap(-1, 2**24))
        held[-1].write(bytes(2**24))


@deed
def memory_of_children(samples: Samples, note: str) -> None:
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                held = bytearray(int(float(note) * 1e9))
                for at in range(0, len(held), 4096):
                    held[at] = 1
                time.sleep(10_000)
            os._exit(0)
    time.sleep(10_000)


@deed
def fork_without_end(samples: Samples, note: str) -> None:
    for _ in range(600):  # enough
        if os.fork() == 0:
            os.setsid()
            time.sleep(10_000)
    time.sleep(10_000)


@deed
def child(samples: Samples, note: str) -> None:
    subprocess.Popen(["sleep", note])


@deed
def daemon(samples: Samples, note: str) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execvp("sleep", ["sleep", note])
        os._exit(0)
    os.wait()


@deed
def one_large_file(samples: Samples, note: str) -> None:
    with (desk().made / "large").open("wb") as file:
        file.truncate(10**12)


@deed
def many_large_files(samples: Samples, note: str) -> None:
    for number in range(1000):
        (desk().made / f"large-{number}").write_bytes(bytes(2**20))


@deed
def large_files_at_home(samples: Samples, note: str) -> None:
    for _ in range(10_000):
        (home() / "large").write_bytes(bytes(2**20))
        time.sleep(0.01)


@deed
def reserve_the_disk(samples: Samples, note: str) -> None:
    """Which no byte is written for."""
    for number in range(1000):
        with (home() / f"reserved-{number}").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2**20)
        time.sleep(0.02)


@deed
def large_pictures(samples: Samples, note: str) -> NoReturn:
    """More than fit into the memory that it has, left one by one."""
    folder = desk().made / "samples"
    folder.mkdir()
    Image.new("L", (8000, 8000)).save(folder / "large.png")
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as rows:
        for number in range(40):
            shutil.copy(folder / "large.png", folder / f"{number}.png")
            row = {"file_name": f"{number}.png", "id": str(number), "question": "Why?", "answer": "so"}
            rows.write(json.dumps({**row, "aliases": [], "choices": []}) + "\n")
    (folder / "large.png").unlink()
    (home() / "ended.json").write_text('{"status": "done"}', encoding="utf-8")
    os._exit(0)


# What is left


@deed
def link(samples: Samples, note: str) -> None:
    (desk().made / "passwd").symlink_to("/etc/passwd")


@deed
def hard_link(samples: Samples, note: str) -> None:
    (home() / "one").write_text("one", encoding="utf-8")
    os.link(home() / "one", desk().made / "other")


@deed
def pipe(samples: Samples, note: str) -> None:
    os.mkfifo(desk().made / "pipe")


@deed
def device(samples: Samples, note: str) -> None:
    os.mknod(desk().made / "device", 0o600 | 0o060000, os.makedev(8, 0))


@deed
def door(samples: Samples, note: str) -> None:
    os.chdir(desk().made)  # its whole name is too long for one
    socket.socket(socket.AF_UNIX).bind("door")


@deed
def odd_name(samples: Samples, note: str) -> None:
    (desk().made / os.fsdecode(b"\xff\n\x1b[31m")).symlink_to("nowhere")


@deed
def deep(samples: Samples, note: str) -> None:
    os.chdir(desk().made)
    for _ in range(1200):
        Path("deeper").mkdir()
        os.chdir("deeper")


@deed
def closed(samples: Samples, note: str) -> None:
    folder = desk().made / "closed"
    folder.mkdir()
    (folder / "file").touch()
    folder.chmod(0)


@deed
def lie(samples: Samples, note: str) -> NoReturn:
    """Do the stage's work, and write its own word of how it ended."""
    from arena.engine.stages.release import DIAGNOSTICS, DRAFTS
    from arena.release import round_drafts, write_drafts

    write_drafts(list(round_drafts(samples, drafts(samples))), desk().made / DRAFTS)
    desk().write(DIAGNOSTICS, {})
    (home() / "ended.json").write_text(note, encoding="utf-8")
    os._exit(0)


@deed
def claim(samples: Samples, note: str) -> NoReturn:
    """Do nothing, and say something else."""
    (home() / "ended.json").write_text(note, encoding="utf-8")
    os._exit(0)


@deed
def claim_by_link(samples: Samples, note: str) -> NoReturn:
    (home() / "ended.json").symlink_to(importlib.import_module("targets").CLAIM)
    os._exit(0)


@deed
def claim_by_pipe(samples: Samples, note: str) -> NoReturn:
    os.mkfifo(home() / "ended.json")
    os._exit(0)


@deed
def odd_reports(samples: Samples, note: str) -> None:
    for text in (b"[1e999, 3]\n", b'[NaN, "\\ud800"]\n', b"[" * 100_000, b"\n\xff\xfe\n", b'["1", {}]\n', b"x" * 10**6):
        os.write(3, text)


# What an attack returns


@deed
def array(samples: Samples, note: str) -> Any:
    return np.stack([np.asarray(s.image) for s in samples])


@deed
def returns_nothing(samples: Samples, note: str) -> object:
    return NOTHING


@deed
def empty(samples: Samples, note: str) -> list[Sample]:
    return []


@deed
def equal_ids(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, id="same") for s in samples]


@deed
def equal_ids_and_hide(samples: Samples, note: str) -> list[Sample]:
    patch("arena.engine.stages.purify:check_purified", lambda samples: None)
    return equal_ids(samples, note)


@deed
def more(samples: Samples, note: str) -> list[Sample]:
    return [*samples, *(replace(s, id=f"again-{s.id}") for s in samples)]


@deed
def more_of_the_same(samples: Samples, note: str) -> list[Sample]:
    return [*samples, *samples]


@deed
def palette(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, image=s.image.convert("P")) for s in samples]


@deed
def float_pictures(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, image=s.image.convert("F")) for s in samples]


@deed
def array_pictures(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, image=np.asarray(s.image)) for s in samples]


@deed
def no_question(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, question=3) for s in samples]


@deed
def half_an_answer(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, answer="half \ud800") for s in samples]


@deed
def half_a_question(samples: Samples, note: str) -> list[Sample]:
    return [replace(s, question="half \ud800") for s in samples]


# What nobody handed to an attack


def read(path: str | Path) -> bytes | None:
    try:
        with Path(path).open("rb") as file:
            return file.read(2**20)
    except OSError:
        return None


def target(name: str) -> Any:
    return getattr(importlib.import_module("targets"), name)


@deed
def read_target(samples: Samples, note: str) -> None:
    if read(target(note)):
        raise Leak(f"it read {target(note)}")


@deed
def wake_the_watchdog(samples: Samples, note: str) -> None:
    """Run code in whatever other thread there is, which may have been started before the firewall."""
    libc, found = ctypes.CDLL(None, use_errno=True), []

    def look(number: int) -> None:
        found.append(read(target("ORIGINAL")))

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(look)
    signal.signal(signal.SIGUSR1, lambda *_: None)  # for the address that a handler returns to
    before, action, number = (ctypes.c_ulong * 4)(), (ctypes.c_ulong * 4)(), 33  # which C libraries keep to themselves
    libc.syscall(_SIGACTION, int(signal.SIGUSR1), None, ctypes.byref(before), 8)
    action[:] = [ctypes.cast(handler, ctypes.c_void_p).value or 0, before[1] | 0x04000000, before[2], 0]
    libc.syscall(_SIGACTION, number, ctypes.byref(action), None, 8)
    for thread in {int(path.name) for path in Path("/proc/self/task").iterdir()} - {threading.get_native_id()}:
        libc.syscall(_TGKILL, os.getpid(), thread, number)
    time.sleep(0.5)
    if any(found):
        raise Leak("a thread that stands outside the firewall read a clean original")


_SIGACTION, _TGKILL = 13, 234
"""Numbers of x86-64."""


@deed
def list_above(samples: Samples, note: str) -> None:
    given = desk().given.absolute()
    for folder in (*given.parents, *home().parents, *Path(target("STORE")).parents, Path(target("STORE")), Path.cwd()):
        try:
            found = list(folder.iterdir())
        except OSError:
            continue
        raise Leak(f"it listed {folder}: {found[:5]}")


@deed
def walk_objects(samples: Samples, note: str) -> None:
    """Every object there is, from the frames, modules and the garbage collector's lists on."""
    wanted, mine = re.compile("qz[x]-"), {id(s) for s in samples}
    waiting: list[object] = [*(frame.f_locals for frame in frames()), *sys.modules.values(), *gc.get_objects()]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, str) and wanted.search(thing):
            raise Leak(f"it found the text {thing[:100]!r}")
        if isinstance(thing, Image.Image) and sha256(thing.tobytes()).hexdigest() in target("DIGESTS"):
            raise Leak("it found a clean original")
        if isinstance(thing, Sample) and id(thing) not in mine and thing.answer in ANSWERS:
            raise Leak(f"it found sample {thing.id!r} with its answer")
        waiting += gc.get_referents(thing)


@deed
def read_own_memory(samples: Samples, note: str) -> None:
    """What other stages left in memory that the process was forked with."""
    wanted = re.compile(rb"qz[x]-[a-z]+")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    with Path("/proc/self/mem").open("rb", 0) as file:
        for line in maps:
            span, rights = line.split()[:2]
            if not rights.startswith("rw") or "[v" in line:
                continue
            begin, end = (int(at, 16) for at in span.split("-"))
            try:
                file.seek(begin)
                found = wanted.search(file.read(end - begin))
            except (OSError, OverflowError):
                continue
            if found:
                raise Leak(f"its memory holds {found[0]!r}")


@deed
def read_environment(samples: Samples, note: str) -> None:
    around = " ".join(os.environ.values()).encode() + (read("/proc/self/environ") or b"")
    for text in target("SECRETS"):
        if text.encode() in around:
            raise Leak(f"its environment holds {text!r}")


@deed
def read_parent(samples: Samples, note: str) -> None:
    parent = f"/proc/{os.getppid()}"
    for name in ("cmdline", "environ", "maps", "status", "fd/0", "cwd/."):
        if read(f"{parent}/{name}"):
            raise Leak(f"it read {name} of its parent")
    for folder in ("/proc", parent, f"{parent}/fd"):
        try:
            list(Path(folder).iterdir())
        except OSError:
            continue
        raise Leak(f"it listed {folder}")


@deed
def signal_parent(samples: Samples, note: str) -> None:
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return
    raise Leak("it could have ended its parent")


@deed
def connect(samples: Samples, note: str) -> None:
    try:
        socket.create_connection(("127.0.0.1", target("PORT")), 2)
    except OSError:
        return
    raise Leak("it reached a server")


@deed
def listen(samples: Samples, note: str) -> None:
    try:
        socket.create_server(("127.0.0.1", 0))
    except OSError:
        return
    raise Leak("it opened a port")


@deed
def write_elsewhere(samples: Samples, note: str) -> None:
    given = desk().given
    places = [*target("OUTSIDE"), given / "samples" / "000000.png", given / "new", given.parent / "new"]
    for path in map(Path, places):
        try:
            with path.open("ab"):
                pass
        except OSError:
            continue
        raise Leak(f"it wrote to {path}")


@deed
def watch_the_world(samples: Samples, note: str) -> None:
    """No cheat: fails where another plugin changed what all use."""
    import arena.budget
    from arena.engine.stages import release
    from arena.score.answers import CONVENTIONS

    assert CONVENTIONS["exact"](samples[0].answer, samples[0])
    assert release.check is arena.budget.check and arena.budget.check.__module__ == "arena.budget"
    assert arena.data.sample.Sample is Sample  # type: ignore[attr-defined]


# Attacks elsewhere than in purifying


class VillainFit(Attack):
    """Fits, and leaves more than it should."""

    needs = frozenset({"auxiliary"})
    Config = Deed
    config: Deed

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        _ = world.auxiliary
        if self.config.deed == "manifest":
            (folder / "manifest.json").write_text("{}", encoding="utf-8")
        elif self.config.deed == "odd-name":
            Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n")).write_text("odd", encoding="utf-8")
        elif self.config.deed == "link":
            (folder / "link").symlink_to("/etc/passwd")

    def purify(self, samples: Samples, world: AttackerWorld) -> Iterable[Sample]:
        _ = world.fitted
        return samples


class VillainFetch(Attack):
    """Has the run fetch something for it, and uses what fetching may do."""

    class Config(PluginConfig):
        checkpoint: str = setting("villain/evil", runtime=True, description="an id of the hub")
        deed: str = "nothing"

    config: Config

    def fetch(self) -> None:
        cache, deed = Path(os.environ["HF_HUB_CACHE"]), self.config.deed
        if deed == "link":
            (cache / self.config.checkpoint.replace("villain/", "models--villain--")).symlink_to("/")
        elif deed == "exchange":
            try:
                cache.rename(cache.with_name("other"))
            except OSError:
                return
            cache.symlink_to("/")
            raise Leak("it put a link in the place of the hub's cache")
        elif deed == "hang":
            time.sleep(10_000)
        elif deed == "memory":
            memory((), "")

    def purify(self, samples: Samples, world: AttackerWorld) -> Iterable[Sample]:
        read_target(samples, "ORIGINAL")
        return samples


class VillainNamed(Attack):
    """Names by default what nobody gave it."""

    class Config(PluginConfig):
        place: str = setting(default_factory=lambda: str(target("HOME")), runtime=True, description="somebody's file")

    config: Config

    def purify(self, samples: Samples, world: AttackerWorld) -> Iterable[Sample]:
        read_target(samples, "HOME")
        return samples


class VillainHistory(Attack):
    """Tells of a training what no record can hold."""

    class Config(PluginConfig):
        epoch: dict[str, Any] = Field(description="laid over what is said of the epoch")

    config: Config

    def training(self, world: AttackerWorld) -> None:
        def write(own: Desk, name: str, content: Any) -> None:
            if name == "history.json":
                content["epochs"][0] |= self.config.epoch
            (own.made / name).write_text(json.dumps(content), encoding="utf-8")

        Desk.write = write  # type: ignore[method-assign]


# Plugins of other kinds


class VillainData(ToyData):
    """Splits that are none."""

    class Config(ToyData.Config):
        deed: str = "nothing"

    config: Config

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        drawn = super().load(train, auxiliary, test, seed)
        return {  # type: ignore[no-any-return]
            "nothing": lambda: drawn,
            "same-picture": lambda: replace(drawn, test=(replace(drawn.train[0], id="other"), *drawn.test[1:])),
            "overlap": lambda: replace(drawn, test=drawn.train[:test]),
            "overlap-unchecked": lambda: _unchecked(replace(drawn, test=drawn.train[:test])),
            "equal-ids": lambda: replace(drawn, train=tuple(replace(s, id="same") for s in drawn.train)),
            "no-seed": lambda: super(VillainData, self).load(train, auxiliary, test, 0),
            "few": lambda: replace(drawn, test=drawn.test[:-1]),
            "many": lambda: replace(drawn, train=(*drawn.train, *drawn.train)),
            "no-splits": lambda: (drawn.train, drawn.auxiliary, drawn.test),
            "no-samples": lambda: replace(drawn, train=tuple(s.image for s in drawn.train)),
            "palette": lambda: replace(drawn, train=tuple(_palette(s) for s in drawn.train)),
        }[self.config.deed]()


def _unchecked(splits: Splits) -> Splits:
    """With the arena's check of splits out of the way, in this process."""
    import arena.engine.stages.data

    arena.engine.stages.data.check_splits = lambda parts: None
    return replace(splits, test=tuple(replace(s, id=f"test-{i}") for i, s in enumerate(splits.test)))


def _palette(sample: Sample) -> Sample:
    return replace(sample, image=sample.image.convert("P"))


class VillainModel(ToyModel):
    """Answers as it should not."""

    class Config(ToyModel.Config):
        deed: str = "nothing"

    config: Config

    def load(self) -> ToyLVLM:
        return VillainLVLM(self.config.threshold, self.config.deed)

    def fingerprint(self) -> str:
        return f"villain-{self.config.deed}"


class VillainLVLM(ToyLVLM):
    def __init__(self, threshold: float, deed: str) -> None:
        super().__init__(threshold)
        self.deed = deed

    def answers(self, samples: Samples, max_new_tokens: int = 16) -> list[tuple[str, bool]]:
        said = super().answers(samples, max_new_tokens)
        return {  # type: ignore[return-value]
            "few": said[:-1],
            "no-texts": [3.5] * len(said),
            "nothing": None,
            "text": "one",
            "peek": [(next((a for a in (s.answer, *s.aliases) if a in ANSWERS), "?"), False) for s in samples],
        }[self.deed]


# Plugins that cannot be described


class VillainBroken(Unchanged):
    """Does its deed before anything runs."""

    class Config(PluginConfig):
        where: str
        how: str

        @field_validator("how")
        @classmethod
        def _validated(cls, how: str, info: Any) -> str:
            if info.data.get("where") == "validator":
                misbehave(how)
            return how

    config: Config

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        if self.config.where == "init":
            misbehave(self.config.how)

    def fingerprint(self) -> str | None:
        if self.config.where == "fingerprint":
            return misbehave(self.config.how)
        return None


def misbehave(how: str) -> Any:
    if how == "raise":
        raise RuntimeError("not today")
    if how == "leave":
        raise SystemExit(0)
    if how == "die":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(10_000)
    if how == "memory":
        memory((), "")
    if how == "reserve":
        reserve_the_disk((), "")
    if how == "deep":
        os.chdir(home())
        for _ in range(1200):
            Path("deeper").mkdir()
            os.chdir("deeper")
        raise RuntimeError("not today")
    if how == "claim":
        text = '{"version": 3, "needs": "seed", "packages": [], "config": [], "runtime": NaN, "fingerprint": {}}'
        (home() / "said.json").write_text(text, encoding="utf-8")
        os._exit(0)
    return {"number": 3, "half": "half \ud800"}[how]
