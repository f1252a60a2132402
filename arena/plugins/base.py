"""What a plugin author subclasses: `Defense`, `Attack`, `Recipe`, `Dataset`, `ModelSource`.

The base classes own the invariants, the author writes one method. A plugin sees the world only through the object it is
handed, a `DefenderWorld` or an `AttackerWorld` of `arena.plugins.worlds`. Whatever the engine asks of a plugin stands
here, with a type and a default. Importing this module loads no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from arena.budget import Budget
from arena.data.sample import Sample, Splits
from arena.plugins.settings import DRY_RUN, LATER, RUNTIME, mark, setting
from arena.plugins.worlds import AttackerWorld, DefenderWorld, World

if TYPE_CHECKING:
    import torch

    from arena.lvlm.base import LVLM
    from arena.lvlm.batch import Batch

__all__ = [
    "Attack",
    "AttackerWorld",
    "Dataset",
    "DefenderWorld",
    "Defense",
    "Draft",
    "Effort",
    "ImageAttack",
    "ImageDefense",
    "ModelSource",
    "Pixels",
    "Plugin",
    "PluginConfig",
    "Recipe",
    "TextAttack",
    "TrainingHooks",
    "World",
    "setting",
]

Pixels = Image.Image | np.ndarray
"""A PIL image, or a float array ``(H, W, C)`` or ``(H, W)`` in [0, 1]; the harness rounds it to 8 bits."""

Need = Literal["seed", "model", "auxiliary", "originals", "surrogates"]

Part = Literal["adapters", "projector", "all"]
"""What a recipe trains: adapters beside the weights, the projector, every weight."""


class PluginConfig(BaseModel):
    """Base of every plugin's settings: validated, immutable, unknown names refused.

    A setting is a pydantic field, or a `setting` where there is more to say of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def identity(self) -> dict[str, Any]:
        """The settings that are part of what a cell is, as JSON values: all but those marked `runtime`, and those
        marked `later` that have their default."""
        kept = {}
        for name, value in self.model_dump(mode="json").items():
            field = type(self).model_fields[name]
            if mark(field, RUNTIME) or (mark(field, LATER) and getattr(self, name) == field.get_default()):
                continue
            kept[name] = value
        return kept

    def runtime(self) -> dict[str, Any]:
        """The settings marked `runtime`, as JSON values."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if mark(type(self).model_fields[name], RUNTIME)}

    @classmethod
    def small(cls) -> dict[str, Any]:
        """The values that settings have in a dry run, for those that say one."""
        found = {name: mark(field, DRY_RUN) for name, field in cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Effort:
    """How often a method runs one sample through one model, for estimates: forward passes, forward passes with the
    gradient, and forward passes of a sample's text alone."""

    forwards: float = 0
    gradients: float = 0
    texts: float = 0


class Plugin:
    """Base of everything in the registry.

    `Config` declares the settings. `version` is counted up when results change on purpose; what a change of the source
    does otherwise is found out by `arena accept`. `needs` names what the plugin reads of its world beyond the samples:
    what is not in it is neither handed over nor part of the cell, so a JPEG attack that needs nothing is computed once
    for all seeds and models. `packages` names the installed distributions, beside torch, transformers and peft, whose
    version may change what it computes.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[Need]] = frozenset()
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: PluginConfig | None = None) -> None:
        self.config = self.Config() if config is None else config

    def fingerprint(self) -> str | None:
        """What identifies the files, weights or hub id that the settings name: a digest, or id and commit; None where
        they name none. It is part of what a cell is. Loads no torch."""
        return None

    def fetch(self) -> None:
        """Download what the settings name, such as a checkpoint of the hub, into the cache that `load` reads: stages
        that use the plugin have no network. By default nothing."""

    def pinned(self) -> Mapping[str, Any]:
        """Runtime settings under which the plugin uses just what `fingerprint` found, laid over the others when it
        runs: the commit in place of a hub id's branch. By default none."""
        return {}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a defense proposes for one sample; the harness rounds, measures and refuses."""

    image: Pixels
    question: str


class Defense(Plugin, ABC):
    """A protection: clean samples in, one draft each out, in order."""

    @abstractmethod
    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        """One `Draft` per sample. Answers, order and count are the harness's and cannot be changed."""

    def effort(self, samples: int, budget: Budget) -> Effort:
        """What crafting takes a sample and surrogate, for `samples` of them under `budget`; for estimates alone."""
        return Effort()

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """What sets the method's releases apart from other ones: its docstring says what that is, and it returns None
        where `released`, which came of `samples` in a world like this one, has it, else a sentence on what is wrong.

        `arena check` asks, and no suite does. By default a method claims nothing, which is no protection.
        """
        return "the method says of no property that its releases have it: override `Defense.distinguished`"


class ImageDefense(Defense):
    """A protection of pictures alone: questions pass unchanged."""

    @final
    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        perturbed = self.perturb(samples, world)
        return (Draft(image, s.question) for s, image in zip(samples, perturbed, strict=True))

    @abstractmethod
    def perturb(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Pixels]:
        """One picture per sample, of its size and mode."""


class Attack(Plugin):
    """What a fine-tuner does against a protection: clean the release, train differently, or both."""

    fits: ClassVar[bool] = False
    """Whether `fit` does anything: a purifier that is trained once and used on every release."""
    purifies: ClassVar[bool] = False
    """Whether `purify` does anything; set by itself where a subclass has one of its own."""
    trains: ClassVar[bool] = False
    """Whether `training` may give hooks; set by itself where a subclass has one of its own."""
    rewrites: ClassVar[bool] = False
    """Whether `purify` may change questions, whose meaning is measured then; set by itself where a subclass has a
    `purify` of its own. One that leaves all questions alone may say that it does not."""
    chooses: ClassVar[bool] = False
    """Whether the attack is a choice among others, made by what the attacker has: boards then rank by what is left
    under it, with the worst case beside it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for flag, method in (("fits", "fit"), ("purifies", "purify"), ("trains", "training")):
            if flag not in cls.__dict__ and getattr(cls, method) is not getattr(Attack, method):
                setattr(cls, flag, True)
        if "purify" in cls.__dict__ and "rewrites" not in cls.__dict__:
            cls.rewrites = True

    @property
    def in_domain(self) -> str:
        """What of the attack was made with clean data of the kind that is attacked, as a clause, such as "its model was
        trained on clean pictures of these datasets"; empty where nothing was. Boards book such an attack as one of
        attackers who have such data, whatever share of clean samples it takes."""
        return ""

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        """Train on the attacker's own data and write what `purify` needs into `folder` (safetensors, JSON)."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        """The training set made of the released `samples`; it may be shorter or longer. Default: unchanged."""
        return samples

    def training(self, world: AttackerWorld) -> TrainingHooks | None:
        """Hooks into fine-tuning (adversarial training, augmentation, loss filtering); None leaves it alone."""
        return None

    def effort(self) -> Effort:
        """What the attack takes a sample, in purifying or fitting, and where it enters training at every pass; for
        estimates alone."""
        return Effort(gradients=1) if "model" in self.needs and not self.trains else Effort()


class ImageAttack(Attack, ABC):
    """A purification of pictures alone."""

    rewrites = False

    @final
    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        images = self.purify_images([s.image for s in samples], world)
        return (s.with_content(image, s.question) for s, image in zip(samples, images, strict=True))

    @abstractmethod
    def purify_images(self, images: Sequence[Image.Image], world: AttackerWorld) -> Iterable[Image.Image]:
        """One picture per picture, in order."""


class TextAttack(Attack, ABC):
    """A purification of questions alone."""

    @final
    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        texts = self.purify_texts([s.question for s in samples], world)
        return (s.with_content(s.image, text) for s, text in zip(samples, texts, strict=True))

    @abstractmethod
    def purify_texts(self, texts: Sequence[str], world: AttackerWorld) -> Iterable[str]:
        """One question per question, in order."""


class TrainingHooks:
    """How a training-time attack enters any recipe: it replaces the loss of a step.

    ``batch.images`` holds the raw pictures in [0, 1], ``batch.indices`` their places in the training set, so a subclass
    may perturb pictures (``lvlm.with_images(batch, images)``), draw augmentations, weigh samples or remember their
    losses. Plain training is::

        def loss(self, lvlm, batch, progress):
            return lvlm.loss(batch)
    """

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        """The scalar to descend on; `progress` runs from 0 to 1 over the whole training."""
        return lvlm.loss(batch)


class Recipe(Plugin, ABC):
    """How a fine-tuner trains. The loop itself is the arena's; a recipe says what is trainable and with which
    settings. Its `Config` derives from `arena.recipes.config.TrainingConfig`."""

    parts: ClassVar[frozenset[Part]] = frozenset({"all"})
    """What learns, for estimates."""

    @property
    def packs(self) -> bool:
        """Whether several fine-tunings may be trained in one pass: all that learns are LoRA's adapters on linear layers
        of the language model, and random numbers come from torch alone."""
        return False

    @property
    def rank(self) -> int:
        """Rank of the adapters, 0 where there are none; for estimates."""
        return 0

    @abstractmethod
    def prepare(self, lvlm: LVLM) -> LVLM:
        """The same LVLM with its model made trainable (adapters attached, the rest frozen)."""


class Dataset(Plugin, ABC):
    """A source of samples with a scoring convention."""

    convention: ClassVar[str] = "exact"
    """Key of `arena.score.answers.CONVENTIONS`."""
    measures: ClassVar[tuple[str, ...]] = ()
    """Keys of `arena.score.measures.MEASURES` that the field reports for this dataset beside accuracy."""

    @abstractmethod
    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Disjoint splits of the given sizes, a function of the seed alone."""

    def dry_run(self, folder: Path, rows: int) -> Mapping[str, Any] | None:
        """The settings under which this dataset needs nothing from elsewhere: small data of its schema, at least `rows`
        a split, which are written to `folder` (new, and kept). None, the default, leaves it as it is."""
        return None


class ModelSource(Plugin, ABC):
    """Where an LVLM comes from."""

    family: ClassVar[str]
    """The architecture family; equal families make a cell gray-box instead of black-box."""
    billions: ClassVar[float | None] = None
    """Parameters of what the default settings name, in 1e9, for estimates; None where nobody counted."""

    @abstractmethod
    def load(self) -> LVLM:
        """The model, freshly loaded, in evaluation mode."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What identifies the weights: a digest of the files, or hub id and commit. Loads no torch."""

    def parameters(self) -> float | None:
        """How many parameters the model has, for estimates; None where nobody counted."""
        return None if self.billions is None else self.billions * 1e9

    def dry_run(self, folder: Path, seed: int) -> Mapping[str, Any] | None:
        """The settings under which this source gives a tiny random model of its architecture, whose checkpoint is
        written to `folder` (new, and kept) with weights drawn from `seed`. None, the default, leaves it as it is."""
        return None
