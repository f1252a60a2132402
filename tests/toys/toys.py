"""Plugins of a made-up third party: small, fast, and some of them ill-behaved. No torch of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from arena.data.sample import Sample, Splits
from arena.engine.job import Desk, attacker_world
from arena.engine.stages import KINDS, FineTune, Score
from arena.plugins.base import (
    Attack,
    AttackerWorld,
    Dataset,
    DefenderWorld,
    Defense,
    Draft,
    ImageAttack,
    ImageDefense,
    ModelSource,
    Pixels,
    PluginConfig,
    Recipe,
    TextAttack,
    TrainingHooks,
    setting,
)
from arena.store.local import Store

ANSWERS = ("zero", "one")
HANDED: dict[str, list[object]] = {"defense": [], "attack": []}
"""Everything that plugins of this module were handed, for the firewall's test."""


class ToyData(Dataset):
    """Noise pictures with a yes-or-no answer."""

    class Config(PluginConfig):
        size: int = Field(8, ge=1)

    config: Config

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        rng = np.random.default_rng(seed)
        samples = [self._sample(i, rng) for i in range(train + auxiliary + test)]
        return Splits(
            tuple(samples[:train]), tuple(samples[train : train + auxiliary]), tuple(samples[train + auxiliary :])
        )

    def _sample(self, i: int, rng: np.random.Generator) -> Sample:
        pixels = rng.integers(40, 200, (self.config.size, self.config.size), dtype=np.uint8)
        return Sample(f"toy-{i:05d}", Image.fromarray(pixels), f"what number is picture {i}?", ANSWERS[i % 2])


class ToyBright(Dataset):
    """Pictures that are one level darker or brighter than 120 and up to twelve: the toy model can learn which is which.
    As many of the one as of the other have each distance."""

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        parts = []
        for name, count in (("train", train), ("auxiliary", auxiliary), ("test", test)):
            rng = np.random.default_rng([seed, *name.encode()])
            parts.append(tuple(self._sample(name, i, rng) for i in range(count)))
        return Splits(*parts)

    def _sample(self, name: str, i: int, rng: np.random.Generator) -> Sample:
        distance = 1 + i // 2 % 12
        around = rng.permutation(np.repeat([-30, 30], 32)).reshape(8, 8)
        pixels = np.uint8(120 + (distance if i % 2 else -distance) + around)
        return Sample(f"{name}-{i:05d}", Image.fromarray(pixels), "is it bright?", ANSWERS[i % 2])


class ToyLVLM:
    """Answers by the mean of the picture."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def answers(self, samples: Sequence[Sample], max_new_tokens: int = 16) -> list[tuple[str, bool]]:
        return [(ANSWERS[int(np.asarray(s.image).mean() > self.threshold)], False) for s in samples]

    def perplexities(self, texts: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class ToyModel(ModelSource):
    family = "toy"

    class Config(PluginConfig):
        threshold: float = 120.0

    config: Config

    def load(self) -> ToyLVLM:  # type: ignore[override]
        return ToyLVLM(self.config.threshold)

    def fingerprint(self) -> str:
        return f"{type(self).__name__}-{self.config.threshold}"


class ToyRelative(ToyModel):
    """Another checkpoint of the family."""


class ToyStranger(ToyModel):
    family = "other"


class ToyReading(ToyLVLM):
    """Answers those questions alone in which it is asked for a number."""

    def answers(self, samples: Sequence[Sample], max_new_tokens: int = 16) -> list[tuple[str, bool]]:
        said = super().answers(samples, max_new_tokens)
        return [a if "number" in s.question.lower() else ("what?", False) for a, s in zip(said, samples, strict=True)]


class ToyReader(ToyModel):
    def load(self) -> ToyLVLM:  # type: ignore[override]
        return ToyReading(self.config.threshold)


class ToyRecipe(Recipe):
    class Config(PluginConfig):
        rate: float = 0.1

    def prepare(self, lvlm: object) -> object:  # type: ignore[override]
        return lvlm


class ToyNoise(ImageDefense):
    """Noise of the budget's size."""

    needs = frozenset({"seed"})

    class Config(PluginConfig):
        strength: float = Field(1.0, ge=0, le=1)

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        HANDED["defense"] += [samples, world]
        rng = world.rng()
        bound = world.budget.epsilon * self.config.strength
        return [
            np.clip(np.asarray(s.image) / 255 + rng.uniform(-bound, bound, s.image.size[::-1]), 0, 1) for s in samples
        ]


class ToyPlaced(ToyNoise):
    """Noise that is said to be computed on some device."""

    class Config(ToyNoise.Config):
        device: str = setting("cpu", runtime=True, description="torch device")


class ToyShift(ImageDefense):
    """Makes every picture brighter, so that the toy model learns a threshold that is too high."""

    class Config(PluginConfig):
        step: int = Field(8, description="levels")

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        return [Image.fromarray(np.asarray(s.image) + np.uint8(self.config.step)) for s in samples]


class ToyFixed(Defense):
    """A word at the end of every question."""

    class Config(PluginConfig):
        word: str = Field("please", description="the word")

    config: Config

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        return [Draft(s.image, f"{s.question} {self.config.word}") for s in samples]


class ToyCrafted(ImageDefense):
    """Reads its surrogates, its public samples and its workspace."""

    needs = frozenset({"seed", "surrogates", "auxiliary"})

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        HANDED["defense"] += [samples, world, world.surrogates(), world.auxiliary, world.workspace]
        return [s.image for s in samples]


class ToyLoud(ImageDefense):
    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        return [Image.fromarray(np.asarray(s.image) + 30) for s in samples]


class ToyRaising(ImageDefense):
    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        raise ValueError("the toy is broken")


class ToyHanging(ImageDefense):
    """Hangs in C code that does not let go of the interpreter lock."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        re.match(r"(a+)+$", "a" * 64 + "b")
        return [s.image for s in samples]


class ToyDying(ImageDefense):
    """Ends its process, as the kernel does to one that is out of memory."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


class ToyTalking(ImageDefense):
    """Says how far it is, and takes its time."""

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        for step in range(8):
            world.progress((step + 1) / 10, f"round {step + 1}")
            time.sleep(0.25)
        return [s.image for s in samples]


class ToyRemark(ImageDefense):
    """Changes nothing and measures something."""

    class Config(PluginConfig):
        remark: float = 0.0

    config: Config

    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        world.diagnostics["remark"] = self.config.remark
        return [s.image for s in samples]


class ToyInvert(ImageAttack):
    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        HANDED["attack"] += [images, world]
        return [ImageOps.invert(image) for image in images]


class ToyKeep(TextAttack):
    """Changes nothing."""

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return texts


class ToyKeepToo(ToyKeep):
    """Changes nothing either."""


class ToyShout(TextAttack):
    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return [text.upper() for text in texts]


class ToyMute(TextAttack):
    """Leaves nothing of a question."""

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return ["hm" for _ in texts]


class ToyHalf(Attack):
    """Leaves out every second sample, turns the others round, mutes the first, and brings one of its own along."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        kept = [s.with_content(ImageOps.invert(s.image), s.question) for s in samples[::2]]
        first = kept[0].with_content(kept[0].image, "hm")
        return [Sample("mine", kept[0].image, "what number?", "one"), *kept[:0:-1], first]


class ToyDictionary(TextAttack):
    """Reads a file of the user's."""

    class Config(PluginConfig):
        file: Path = Field(description="of one word")

    config: Config

    def fingerprint(self) -> str:
        return self.config.file.read_text(encoding="utf-8")

    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        return [self.config.file.read_text(encoding="utf-8") for _ in texts]


class ToyDrawn(Attack):
    """Reads its seed and its base model."""

    needs = frozenset({"seed", "model"})

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        HANDED["attack"] += [samples, world, world.model()]
        return [samples[i] for i in world.rng().permutation(len(samples))]


class ToyFitted(Attack):
    """Fits on the attacker's own samples."""

    needs = frozenset({"auxiliary"})
    fits = True

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        mean = float(np.mean([np.asarray(s.image).mean() for s in world.auxiliary]))
        (folder / "mean.json").write_text(json.dumps(mean), encoding="utf-8")

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        HANDED["attack"] += [samples, world, world.auxiliary]
        mean = json.loads((world.fitted / "mean.json").read_text(encoding="utf-8"))
        return [s.with_content(s.image.point(lambda v: min(v, int(mean))), s.question) for s in samples]


class ToyLeaked(Attack):
    """Puts back the originals that leaked."""

    needs = frozenset({"originals"})

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        HANDED["attack"] += [samples, world, world.originals]
        known = {sample.id: sample.image for sample in world.originals}
        return [s.with_content(known.get(s.id, s.image), s.question) for s in samples]


class ToyTrained(Attack):
    needs = frozenset({"seed"})

    def training(self, world: AttackerWorld) -> TrainingHooks:
        HANDED["attack"] += [world]
        return TrainingHooks()


class ToyNoting(Attack):
    """Notes an id for its own training, `times` over, or as no dict, or as what JSON cannot hold."""

    class Config(PluginConfig):
        times: int = 1
        kind: str = "list"

    config: Config

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        assert world.notes == {}
        if self.config.kind == "no dict":
            world.notes = [samples[0].id]  # type: ignore[assignment]
        else:
            seen = [samples[0].id] * self.config.times
            world.notes["seen"] = set(seen) if self.config.kind == "set" else seen
        return samples

    def training(self, world: AttackerWorld) -> None:
        HANDED["attack"] += [dict(world.notes)]


# Fine-tuning of the toy model: the mean of its training pictures becomes its threshold; it remembers the questions.


def fine_tuned(stage: FineTune, desk: Desk) -> None:
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    for number, part in enumerate(stage.training):
        part.attack.create().training(attacker_world(desk, part.grants, f"training.{number}."))  # type: ignore[attr-defined]
    samples = desk.samples("samples")
    threshold = float(np.mean([np.asarray(s.image).mean() for s in samples])) + stage.seed
    epoch = {"loss": 1.0, "held_out_loss": 1.0, "held_out_accuracy": 0.5}
    (desk.made / "epoch-0.safetensors").write_bytes(b"toy")
    told = {"threshold": threshold, "questions": [s.question for s in samples]}
    desk.write("history.json", {"chosen": 0, "epochs": [epoch], **told})


def scored(stage: Score, desk: Desk) -> None:
    history = json.loads((desk.path("adapter") / "history.json").read_text(encoding="utf-8"))
    desk.write("answers.json", {"0": ToyLVLM(history["threshold"]).answers(desk.samples("test"))})


def install() -> None:
    """Let this process fine-tune and score toys, and note each artifact it makes in the file ``TOY_LOG``."""
    FineTune.run, Score.run = fine_tuned, scored  # type: ignore[method-assign]
    for kind in KINDS:
        kind.preload = ()
    if not hasattr(Store.put, "logged"):
        Store.put = logged(Store.put)  # type: ignore[method-assign]


def logged(put: Callable[..., Any]) -> Callable[..., Any]:
    """`Store.put`, noted in the file ``TOY_LOG`` once it is done."""

    @contextmanager
    def noted(self: Store, key: str, kind: str, *arguments: Any, **named: Any) -> Iterator[Path]:
        with put(self, key, kind, *arguments, **named) as folder:
            yield folder
        if log := os.environ.get("TOY_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{kind} {key}\n")

    noted.logged = True  # type: ignore[attr-defined]
    return noted


if "pytest" not in sys.modules:  # such as a stage's process; tests install toys for as long as they run
    install()
