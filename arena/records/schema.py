"""Result records: one JSON object a cell, validated on write and on read.

A record says what was asked, from which alone its cell follows (`arena.plugins.identity`), what made it, and what came
out: whatever a score needs (per-item correctness, bit-packed), so every statistic of a board can be recomputed from
records alone. Loads no torch.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from arena.plugins.identity import (
    CONTROL,
    SPLITS,
    CanonicalJson,
    asked_of,
    asked_of_budget,
    cell_name,
    digest_of,
)

SCHEMA_VERSION = 2


def _finite(value: object) -> object:
    # JSON has no infinity (the PSNR of an unchanged picture) and no NaN (the loss of a training that diverged).
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite)]
"""A measured number; infinite and undefined ones are stored as null."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, some of whose fields may be others; what was worked out from the fields is not taken along."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class SuiteRef(_Part):
    """The suite that asked first; other suites may have the same cell."""

    id: str
    digest: str


class Origin(_Part):
    package: str
    version: str


class PluginRef(_Part):
    """A plugin as it ran. `config` has the settings that are part of the cell, `runtime` the others; `fingerprint` is
    what identifies files, weights or hub id that the settings name; `source_digest` says which code it was."""

    id: str
    version: str
    config: dict[str, JsonValue]
    runtime: dict[str, JsonValue]
    fingerprint: str | None
    source_digest: str
    origin: Origin

    @property
    def settings(self) -> dict[str, JsonValue]:
        """All settings."""
        return {**self.config, **self.runtime}

    @cached_property
    def asked(self) -> CanonicalJson:
        """Its share of what a cell asks, see `arena.plugins.identity`."""
        return asked_of(self.__dict__)


class LabelledRef(PluginRef):
    """A plugin with the name that boards print, such as ``em`` or ``mmguard-bph(q_steps=0)``."""

    label: str


class DatasetRef(PluginRef):
    """A dataset: split sizes in samples, the seed that draws them, digest of the samples that were drawn, key of its
    scoring convention. `samples` is null in what was asked, and where they could not be drawn."""

    train: Count
    auxiliary: Count
    test: Count
    seed: Count
    convention: str
    samples: str | None

    @cached_property
    def asked(self) -> CanonicalJson:
        return asked_of(self.__dict__, SPLITS)


class ModelRef(PluginRef):
    """A base model: digest of its weights, or hub id and commit, and its architecture family."""

    fingerprint: str
    family: str


class DefenseRef(LabelledRef):
    """A protection and the models it was crafted against."""

    surrogates: list[ModelRef]


class RecipeRef(LabelledRef):
    """A recipe. One of a `sweep`, a choice of the fine-tuner among recipes, has its name, and how much worse than the
    best of them one may be on held-out clean data so that it can be chosen."""

    sweep: str | None = None
    clean_cost: Share | None = None


class AttackRef(_Part):
    """An attack, or a sequence of them, such as ``jpeg+case``; its `label` is what boards print.

    What its parts declare: `chooses`, whether one is a choice among others that is made by what the attacker has, and
    `in_domain`, what of them was made with clean data of the kind that is attacked (None of nothing, and in records
    from before this was declared).
    """

    label: str
    parts: Annotated[list[PluginRef], Field(min_length=1)]
    chooses: bool = False
    in_domain: str | None = None

    @property
    def id(self) -> str:
        """The ids of the parts, joined by ``+``."""
        return "+".join(part.id for part in self.parts)

    @property
    def whole(self) -> PluginRef:
        """The attack as one plugin: settings of a sequence are keyed by its parts, versions and packages joined."""
        if len(self.parts) == 1:
            return self.parts[0]
        packages = sorted({(part.origin.package, part.origin.version) for part in self.parts})
        return PluginRef(
            id=self.id,
            version="+".join(part.version for part in self.parts),
            config={part.id: part.settings for part in self.parts},
            runtime={},
            fingerprint=None,
            source_digest=digest_of({"parts": [part.source_digest for part in self.parts]}),
            origin=Origin(package="+".join(p for p, _ in packages), version="+".join(v for _, v in packages)),
        )


class BudgetRef(_Part):
    """What a protection may change: `image` in units of 1/255 under `norm`, or in pixels, `text` in inserted words, and
    whether these may not be words of the answer, which no record says from before there was the rule."""

    norm: str
    image: Finite
    text: Count
    forbid_answer_words: bool = False

    @cached_property
    def asked(self) -> CanonicalJson:
        """Its share of what a cell asks."""
        return asked_of_budget(self.model_dump(mode="json"))


class Failure(_Part):
    stage: str
    error: str
    traceback: str


class Outcome(_Part):
    """Accuracy in [0, 1] over `items` test items, with each item's correctness as base64 of `numpy.packbits`.

    `metrics` are the means of the dataset's measures beside it, such as VQA accuracy or ANLS, by name; `cut` is how
    many answers the limit of tokens ended (None in records from before that was counted).
    """

    accuracy: Share
    items: Annotated[int, Field(ge=1)]
    correct: str
    metrics: dict[str, Measured]
    cut: Count | None = None

    @classmethod
    def pack(cls, correct: ArrayLike, metrics: dict[str, float] | None = None, cut: int | None = None) -> Self:
        """An outcome from one boolean per test item, shape ``(items,)``."""
        bits = np.asarray(correct, dtype=np.bool_)
        encoded = base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")
        accuracy = float(bits.mean())
        return cls(accuracy=accuracy, items=bits.size, correct=encoded, metrics=dict(metrics or {}), cut=cut)

    def unpack(self) -> NDArray[np.bool_]:
        """One boolean per test item, shape ``(items,)``."""
        packed = np.frombuffer(base64.b64decode(self.correct, validate=True), dtype=np.uint8)
        return np.unpackbits(packed, count=self.items).view(np.bool_)

    @model_validator(mode="after")
    def _bits_agree(self) -> Self:
        try:
            packed = base64.b64decode(self.correct, validate=True)
        except binascii.Error as error:
            raise ValueError(f"correct: not base64 ({error})") from error
        padding = -self.items % 8
        if 8 * len(packed) != self.items + padding or packed[-1] & ((1 << padding) - 1):
            raise ValueError(f"correct: {len(packed)} bytes do not hold exactly {self.items} items")
        mean = int.from_bytes(packed, "big").bit_count() / self.items
        if abs(mean - self.accuracy) > 1e-9:
            raise ValueError(f"accuracy {self.accuracy} is not the mean of the item bits, {mean}")
        return self


class Meaning(_Part):
    """What an attack left of the meaning of `samples` clean training questions, of which the share `changed` changed.

    `accuracy` is that of the base model, before any fine-tuning, on the questions as rewritten, `accuracy_before` on
    the same as they were; `similarity` the mean cosine of the sentence embeddings of both, by the `embedding` of that
    fingerprint, where the suite names one.
    """

    samples: Annotated[int, Field(ge=1)]
    changed: Share
    accuracy_before: Share
    accuracy: Share
    similarity: Measured = None
    embedding: str | None = None


class Epoch(_Part):
    """One epoch of fine-tuning on the fine-tuner's own held-out split; `test_accuracy` where it was asked for."""

    loss: Measured
    held_out_accuracy: Share
    held_out_loss: Measured
    test_accuracy: Share | None


class StageCost(_Part):
    """Wall-clock seconds, and peak resident memory in MB (null where it could not be measured)."""

    seconds: Finite
    seconds_per_sample: Finite
    peak_memory_mb: Measured


class Cost(_Part):
    """What a cell's stages cost, on the machine named."""

    protect: StageCost | None
    purify: StageCost | None
    finetune: StageCost | None
    machine: str


class Lineage(_Part):
    """Content digests from clean samples to score; null where the cell never got there."""

    clean: str | None
    release: str | None
    purified: str | None
    checkpoint: str | None
    score: str | None


class Environment(_Part):
    """What the cell ran on; `nondeterminism` names what could not be made deterministic, `isolation` what kept plugins
    to their own (None in records from before there was any), the weakest of the cell's stages."""

    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    device: str
    threads: Annotated[int, Field(ge=1)]
    nondeterminism: list[str]
    isolation: Literal["landlock", "process", "none"] | None = None


class Asked(_Part):
    """What a cell asks: a defense meets an attack under a recipe, on a model, a dataset and a seed.

    `knowledge` is how near the defender's models are to the fine-tuner's, `auxiliary` the attacker's clean samples as a
    share of the training size.
    """

    protocol_version: Count
    dataset: DatasetRef
    model: ModelRef
    defense: DefenseRef
    attack: AttackRef
    recipe: RecipeRef
    knowledge: Literal["white-box", "gray-box", "black-box", "none"]
    budget: BudgetRef
    auxiliary: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: Count

    @cached_property
    def identity(self) -> str:
        """The cell's name, see `arena.plugins.identity`."""
        return cell_name(
            protocol_version=self.protocol_version,
            dataset=self.dataset.asked,
            model=self.model.asked,
            defense=self.defense.asked,
            surrogates=[surrogate.asked for surrogate in self.defense.surrogates],
            budget=None if self.defense.id == CONTROL else self.budget.asked,
            attack=[part.asked for part in self.attack.parts],
            auxiliary=self.auxiliary,
            recipe=self.recipe.asked,
            seed=self.seed,
        )

    def plugins(self) -> Iterator[tuple[str, PluginRef]]:
        """Every plugin that takes part, with its kind; the attack by its parts."""
        yield "dataset", self.dataset
        yield "model", self.model
        yield "defense", self.defense
        yield from (("model", surrogate) for surrogate in self.defense.surrogates)
        yield from (("attack", part) for part in self.attack.parts)
        yield "recipe", self.recipe


class Record(Asked):
    """One cell: what was asked, what made it, and what came out.

    `zero_shot` is the base model's outcome, `outcome` that of the epoch the fine-tuner keeps, `peak_accuracy` the best
    of all epochs on test data where all were scored, `engine_digest` the source of the engine, as `source_digest` is
    that of a plugin, `created` ISO 8601.
    """

    schema_version: Literal[2] = 2
    identity_version: Literal[1] = 1
    suite: SuiteRef
    cell: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    status: Literal["done", "failed"]
    failure: Failure | None
    zero_shot: Outcome | None
    outcome: Outcome | None
    peak_accuracy: Share | None
    chosen_epoch: Count | None
    epochs: list[Epoch]
    stealth: dict[str, Measured] | None
    meaning: Meaning | None = None
    cost: Cost
    diagnostics: dict[str, Measured]
    lineage: Lineage
    engine_digest: str
    environment: Environment
    created: str

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        done = self.status == "done"
        if (self.outcome is not None) != done or (self.failure is None) != done:
            raise ValueError("a record that is done has an outcome and no failure, one that failed the reverse")
        if done and self.epochs and not (self.chosen_epoch is not None and self.chosen_epoch < len(self.epochs)):
            raise ValueError(f"chosen_epoch: {self.chosen_epoch} is none of the {len(self.epochs)} epochs, from 0")
        for name, outcome in (("zero_shot", self.zero_shot), ("outcome", self.outcome)):
            if outcome is not None and outcome.items != self.dataset.test:
                raise ValueError(f"{name}: {outcome.items} items, but the dataset has {self.dataset.test} test items")
        if self.cell != self.identity:
            raise ValueError(f"cell {self.cell[:12]} is not what its fields ask for, which is {self.identity[:12]}")
        return self
