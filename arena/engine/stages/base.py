"""What every kind of stage is: a frozen dataclass of what it needs, which computes an artifact and says what of it goes
into a record and what it will take.

A stage has a `name` when it is planned, made of what is asked, and a `key` in the store once its inputs are there, made
of their contents and of all that the result depends on. So two stages whose inputs turn out the same are one artifact.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel

from arena.data.sample import Sample, digest
from arena.errors import ArenaError
from arena.plugins.base import Plugin
from arena.plugins.identity import digest_of
from arena.plugins.source import engine_digest
from arena.plugins.spec import PluginSpec, load_model
from arena.release import copy_release, write_release
from arena.store.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from arena.engine.job import Desk, Job

Fields = dict[str, Any]
"""Fields of a record while it is put together, those of its parts in dictionaries of their own."""

FORWARD, FROZEN, LEARNING = 2, 2, 4
"""FLOPs per parameter and token: forwards, backwards through frozen weights, backwards with all weights learning."""

TEXT, ANSWER = 128, 16
TOKENS = 1024 + TEXT
"""Tokens of a sample in estimates, whatever its picture and the model, those of its text, and of an answer."""

PICTURE = 1.5e6
"""Bytes of a sample in estimates."""


class Costs(Protocol):
    """What a stage asks when it says what it will take, see `arena.engine.cost`."""

    def parameters(self, model: PluginSpec) -> float:
        """How many the model has; 0 where nobody said."""

    def plugin(self, spec: PluginSpec) -> Plugin:
        """The plugin of a spec, made once."""

    def samples(self, stage: str) -> int:
        """How many samples the stage of that name leaves."""


@dataclass(frozen=True)
class Input:
    """What a stage reads: an output of the stage of that name, a file or folder of its artifact; all where empty."""

    stage: str
    output: str = ""


SAMPLES = "samples"
"""The output that holds samples."""


@dataclass(frozen=True)
class Asking:
    """A question to a model, whose answer is written as JSON."""

    model: PluginSpec
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft", "arena.lvlm.base", "arena.engine.warm")
    network: ClassVar[bool] = False

    @property
    def plugin(self) -> str:
        """Whose failure it is."""
        return f"model {self.model.id!r}"

    def plugins(self) -> dict[str, PluginSpec]:
        """The plugins that run, by their places."""
        return {"model": self.model}

    def run(self, desk: Desk) -> None:
        """Tokens of each of the texts in ``texts.json``, without special ones."""
        texts = json.loads(desk.path("texts.json").read_text(encoding="utf-8"))
        desk.write("counts.json", load_model(self.model).token_counts(texts))


@dataclass(frozen=True)
class Artifact:
    """What a stage left in the store."""

    path: Path
    manifest: Manifest

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One computation. A field that is an `Input` is read, by the field's name; every other is part of the question,
    but for `label` and `size`, which are for people and for estimates."""

    kind: ClassVar[str]
    revision: ClassVar[int] = 1
    """Counted up when what the stage writes changes its form; what it says changes with the protocol version."""
    seconds_per_sample: ClassVar[float]
    """Estimate until a like stage has been measured; the order of magnitude of a tiny model on one core."""
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft", "arena.lvlm.base", "arena.engine.warm")
    """Modules that its plugins' process finds loaded."""
    judged_by: ClassVar[tuple[str, ...]] = ()
    """Modules that the harness needs where its own part takes long, which gets a process too then."""
    network: ClassVar[bool] = False
    """Whether its plugins may reach the network: where they hold nothing that another must not see."""

    label: str
    size: int

    def hand_over(self, job: Job, given: Path) -> None:
        """Copy to the folder `given` what the stage's plugins may know: by default all that it reads, a folder or file
        an input by its field."""
        for role in self.inputs:
            self.copy(job, role, given)

    def copy(self, job: Job, role: str, given: Path, first: int | None = None, answers: bool = True) -> None:
        """Copy one input; of samples the `first` ones, without their `answers` if those are none of the reader's
        business."""
        link, target = self.inputs[role], given / role
        source = job.path(role) / link.output
        if link.output == SAMPLES:
            copy_release(source, target, first, answers)
        else:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(MANIFEST))

    @abstractmethod
    def run(self, desk: Desk) -> None:
        """Do the plugins' part, in a process of its own: read what was handed over, write what comes of it."""

    def ask(self, job: Job, made: Path, given: Path) -> Asking | None:
        """What is still to be asked of a model, in another process, before the harness can judge what was made; the
        question is written into the folder `given`."""
        return None

    @abstractmethod
    def collect(self, job: Job, made: Path) -> None:
        """Check what the plugins made against what they never held, and fill the folder of the artifact. The files of
        `made` are plain ones, and whatever is in them may be a lie."""

    def named(self, message: str, job: Job) -> str:
        """What its plugins said of their failure, with the ids of samples whose ids they were not told."""
        return message

    def plugins(self) -> dict[str, PluginSpec]:
        """The plugins that run in the stage, by their places."""
        return dict(_plugins(self, ""))

    @property
    def pack(self) -> tuple[str, int] | None:
        """What stages have in common that may be computed in one process, and how many at most; None for one that is
        computed by itself."""
        return None

    @property
    def plugin(self) -> str:
        """Whose failure it is, where the stage fails: the plugin that the stage is for."""
        first = next(iter(self.plugins().values()))
        return f"{first.kind} {first.id!r}"

    def global_seed(self) -> int | None:
        """What the global generators start from, since libraries that plugins use may draw from them; None leaves them
        alone, and torch unloaded."""
        return 0

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        """Put into a record what it has from this stage, which is the cell's `role`; by default nothing."""
        return

    def flops(self, costs: Costs) -> float:
        """Estimate of the FLOPs."""
        return 0.0

    def disk(self, costs: Costs) -> float:
        """Estimate of the bytes it leaves in the store."""
        return 0.0

    @cached_property
    def name(self) -> str:
        """What is asked, as a digest: the same whatever code computes it."""
        inputs = {role: [link.stage, link.output] for role, link in self.inputs.items()}
        return digest_of({"kind": self.kind, **_content(self, "asked_json"), "inputs": inputs})

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """What it reads, by field; those of parts as ``part.number.field``."""
        return dict(_inputs(self, ""))

    @cached_property
    def made_by(self) -> Fields:
        """What the artifact depends on beside the contents of the inputs."""
        own = {"kind": self.kind, "revision": self.revision, "engine": engine_digest(), "packages": packages()}
        return {**own, **_content(self, "made_by")}

    def key(self, contents: Mapping[str, str]) -> str:
        """The artifact's key in the store, for inputs of these content digests by role."""
        return digest_of({**self.made_by, "inputs": dict(contents)})

    def describe(self) -> Fields:
        """What a manifest says of the stage; estimates and `arena plan --why` read it."""
        return {"name": self.name, "size": self.size, "label": self.label, **self.made_by}


@cache
def packages() -> dict[str, str]:
    """Versions of the packages that every stage depends on."""
    found = {}
    for name in ("torch", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _fields(kind: type) -> tuple[str, ...]:
    """The fields of a stage, or of a part of one, without what is said for people."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.name not in ("label", "size"))


def _content(part: Any, view: str) -> Fields:
    """A stage's fields as JSON values, plugins by their `view`, without inputs."""
    fields = ((name, getattr(part, name)) for name in _fields(part.__class__))
    return {name: _plain(value, view) for name, value in fields if not isinstance(value, Input)}


def _plain(value: Any, view: str) -> Any:
    if isinstance(value, PluginSpec):
        return getattr(value, view)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return _content(value, view)
    return [_plain(each, view) for each in value] if isinstance(value, tuple) else value


def _inputs(part: Any, prefix: str) -> Iterator[tuple[str, Input]]:
    for name in _fields(part.__class__):
        value = getattr(part, name)
        if isinstance(value, Input):
            yield f"{prefix}{name}", value
        elif isinstance(value, tuple):
            for number, each in enumerate(value):
                if dataclasses.is_dataclass(each) and not isinstance(each, PluginSpec):
                    yield from _inputs(each, f"{prefix}{name}.{number}.")


def cost(artifacts: Sequence[Artifact]) -> Fields | None:
    """What stages took together, per sample of the first; None of none."""
    if not artifacts:
        return None
    manifests = [artifact.manifest for artifact in artifacts]
    seconds = sum(m.seconds for m in manifests)
    return {
        "seconds": round(seconds, 4),
        "seconds_per_sample": round(seconds / max(1, manifests[0].document["size"]), 6),
        "peak_memory_mb": max(m.peak_memory_mb for m in manifests),
    }


def collect_samples(job: Job, samples: Sequence[Sample]) -> None:
    """Samples as an output of a stage: bytes, and their digest beside them."""
    write_release(samples, job.folder / SAMPLES)
    job.write("samples.json", {"count": len(samples), "digest": digest(samples)})


def read_made(path: Path, what: str) -> Any:
    """A JSON file that a stage's process wrote. Raises `ArenaError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArenaError(f"{what} is missing or no JSON ({error})") from None


def _plugins(part: Any, prefix: str) -> Iterator[tuple[str, PluginSpec]]:
    if isinstance(part, PluginSpec):
        yield prefix, part
    elif isinstance(part, tuple):
        for number, each in enumerate(part):
            yield from _plugins(each, f"{prefix}.{number}")
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            yield from _plugins(getattr(part, field.name), f"{prefix}.{field.name}" if prefix else field.name)
