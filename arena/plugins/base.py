"""What a plugin author subclasses: `Defense`, `Attack`, `Recipe`, `Dataset`, `ModelSource`.

The base classes own the invariants, the author writes one method. A plugin sees the world only through the object it is
handed: `DefenderWorld` has no test data, attack or recipe in it, `AttackerWorld` no clean original and nothing about
the
defense. Importing this module loads no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, final

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from arena.budget import Budget
from arena.data.sample import Sample, Splits
from arena.errors import ArenaError

if TYPE_CHECKING:
    import torch

    from arena.lvlm.base import LVLM, Batch

Pixels = Image.Image | np.ndarray
"""A PIL image, or a float array ``(H, W, C)`` or ``(H, W)`` in [0, 1]; the harness rounds it to 8 bits."""

T = TypeVar("T")

Need = Literal["seed", "model", "auxiliary", "surrogates"]


class PluginConfig(BaseModel):
    """Base of every plugin's settings: validated, immutable, unknown names refused; part of the cache key."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Plugin:
    """Base of everything in the registry.

    `Config` declares the settings; `version` counts changes of behaviour that the source does not show (a new
    dependency,
    other weights); `needs` names what the plugin reads of its world beyond the samples. What is not in `needs` is
    neither
    handed over nor part of the cache key, so a JPEG attack that needs nothing is computed once for all seeds and
    models.
    """

    Config: ClassVar[type[PluginConfig]] = PluginConfig
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self, config: PluginConfig | None = None) -> None:
        self.config = self.Config() if config is None else config


class World:
    """What every party is handed: a seed, and a way to say how far it is."""

    def __init__(self, seed: int | None, progress: Callable[[float, str], None] | None = None) -> None:
        self._seed = seed
        self._progress = progress

    @property
    def seed(self) -> int:
        """The seed of this cell; all randomness of a plugin derives from it."""
        return _granted(self._seed, "seed")

    def rng(self) -> np.random.Generator:
        """A fresh numpy generator at `seed`."""
        return np.random.default_rng(self.seed)

    def torch_generator(self) -> torch.Generator:
        """A fresh CPU torch generator at `seed`."""
        import torch

        return torch.Generator().manual_seed(self.seed)

    def progress(self, done: float, note: str = "") -> None:
        """Report the share done, 0 to 1, with a short note such as the current loss."""
        if self._progress is not None:
            self._progress(done, note)


class DefenderWorld(World):
    """What a data owner knows: the budget, their surrogate models, public auxiliary samples, a seed."""

    def __init__(
        self,
        budget: Budget,
        seed: int | None = None,
        surrogates: Callable[[], tuple[LVLM, ...]] | None = None,
        auxiliary: tuple[Sample, ...] | None = None,
        workspace: Path | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        super().__init__(seed, progress)
        self.budget = budget
        self._surrogates = surrogates
        self._auxiliary = auxiliary
        self.diagnostics: dict[str, float] = {}
        """Numbers about the crafting that the defense wants in the record, by name, such as its final loss."""
        self.workspace = workspace
        """A folder for intermediate state that survives an interruption (resumable crafting), or None."""

    def surrogates(self) -> tuple[LVLM, ...]:
        """The models the defender optimises against, freshly loaded, in the suite's order."""
        return _granted(self._surrogates, "surrogates")()

    @property
    def auxiliary(self) -> tuple[Sample, ...]:
        """Public samples of the same kind, disjoint from training and test data."""
        return _granted(self._auxiliary, "auxiliary")


class AttackerWorld(World):
    """What a fine-tuner knows: their base model, their own clean samples, a seed."""

    def __init__(
        self,
        seed: int | None = None,
        model: Callable[[], LVLM] | None = None,
        auxiliary: tuple[Sample, ...] | None = None,
        fitted: Path | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        super().__init__(seed, progress)
        self._model = model
        self._auxiliary = auxiliary
        self._fitted = fitted

    def model(self) -> LVLM:
        """The fine-tuner's base model, freshly loaded."""
        return _granted(self._model, "model")()

    @property
    def auxiliary(self) -> tuple[Sample, ...]:
        """The attacker's own clean samples; how many is part of the threat model."""
        return _granted(self._auxiliary, "auxiliary")

    @property
    def fitted(self) -> Path:
        """The folder that `Attack.fit` filled (read-only while purifying)."""
        return _granted(self._fitted, "fitted")


def _granted(value: T | None, name: str) -> T:
    if value is None:
        raise ArenaError(
            f"the plugin asked for {name!r}, which it was not granted: declare it in the class's `needs`, "
            "and grant auxiliary samples in the suite (`auxiliary:`)"
        )
    return value


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

    def fit(self, world: AttackerWorld, folder: Path) -> None:
        """Train on the attacker's own data and write what `purify` needs into `folder` (safetensors, JSON)."""

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        """The training set made of the released `samples`; it may be shorter or longer. Default: unchanged."""
        return samples

    def training(self, world: AttackerWorld) -> TrainingHooks | None:
        """Hooks into fine-tuning (adversarial training, augmentation, loss filtering); None leaves it alone."""
        return None


class ImageAttack(Attack, ABC):
    """A purification of pictures alone."""

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

    ``batch.images`` holds the raw pictures in [0, 1], ``batch.indices`` their places in the training set, so a
    subclass may
    perturb pictures (``batch.with_images``), draw augmentations, weigh samples or remember their losses. Plain
    training is::

        def loss(self, lvlm, batch, progress):
            return lvlm.loss(batch)
    """

    def loss(self, lvlm: LVLM, batch: Batch, progress: float) -> torch.Tensor:
        """The scalar to descend on; `progress` runs from 0 to 1 over the whole training."""
        return lvlm.loss(batch)


class Recipe(Plugin, ABC):
    """How a fine-tuner trains. The loop itself is the arena's; a recipe says what is trainable and with which
    settings."""

    @abstractmethod
    def prepare(self, lvlm: LVLM) -> LVLM:
        """The same LVLM with its model made trainable (adapters attached, the rest frozen)."""


class Dataset(Plugin, ABC):
    """A source of samples with a scoring convention."""

    convention: ClassVar[str] = "exact"
    """Key of `arena.score.answers.CONVENTIONS`."""

    @abstractmethod
    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Disjoint splits of the given sizes, a function of the seed alone."""


class ModelSource(Plugin, ABC):
    """Where an LVLM comes from."""

    family: ClassVar[str]
    """The architecture family; equal families make a cell gray-box instead of black-box."""

    @abstractmethod
    def load(self) -> LVLM:
        """The model, freshly loaded, in evaluation mode."""

    @abstractmethod
    def fingerprint(self) -> str:
        """What identifies the weights: a digest of the files, or hub id and revision. Loads no torch."""
