"""Result records: one JSON object a cell, validated on write and on read.

A record holds whatever a score needs (per-item correctness, bit-packed), so every statistic of a board can be
recomputed from records alone. Loads no torch.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

SCHEMA_VERSION = 1


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


class SuiteRef(_Part):
    id: str
    digest: str


class Origin(_Part):
    package: str
    version: str


class PluginRef(_Part):
    """A plugin as it ran. A sequence of attacks is one reference whose id joins theirs, as in ``jpeg+case``."""

    id: str
    version: str
    config: dict[str, JsonValue]
    source_digest: str
    origin: Origin


class LabelledRef(PluginRef):
    """A plugin with the name that boards print, such as ``em`` or ``mmguard-bph(q_steps=0)``."""

    label: str


class DatasetRef(PluginRef):
    """A dataset: digest of its samples, split sizes in samples, key of its scoring convention."""

    fingerprint: str
    train: Count
    auxiliary: Count
    test: Count
    convention: str


class ModelRef(PluginRef):
    """A base model: digest of its weights and its architecture family."""

    fingerprint: str
    family: str


class DefenseRef(LabelledRef):
    """A protection and the models it was crafted against."""

    surrogates: list[str]


class BudgetRef(_Part):
    """What a protection may change: `image` in units of 1/255 under `norm`, `text` in inserted words."""

    norm: str
    image: Finite
    text: Count


class Failure(_Part):
    stage: str
    error: str
    traceback: str


class Outcome(_Part):
    """Accuracy in [0, 1] over `items` test items, with each item's correctness as base64 of `numpy.packbits`.

    `metrics` are the means of the dataset's measures beside it, such as VQA accuracy or ANLS, by name.
    """

    accuracy: Share
    items: Annotated[int, Field(ge=1)]
    correct: str
    metrics: dict[str, Measured]

    @classmethod
    def pack(cls, correct: ArrayLike, metrics: dict[str, float] | None = None) -> Self:
        """An outcome from one boolean per test item, shape ``(items,)``."""
        bits = np.asarray(correct, dtype=np.bool_)
        encoded = base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")
        return cls(accuracy=float(bits.mean()), items=bits.size, correct=encoded, metrics=dict(metrics or {}))

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
    """What the cell ran on; `nondeterminism` names what could not be made deterministic."""

    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    device: str
    threads: Annotated[int, Field(ge=1)]
    nondeterminism: list[str]


class Record(_Part):
    """One cell: a defense met an attack under a recipe, a model, a dataset and a seed.

    `zero_shot` is the base model's outcome, `outcome` that of the epoch the fine-tuner keeps, `peak_accuracy` the best
    of any epoch on test data, `auxiliary` the attacker's clean samples as a share of the training size, `created` ISO
    8601.
    """

    schema_version: Literal[1] = 1
    suite: SuiteRef
    cell: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    status: Literal["done", "failed"]
    failure: Failure | None
    dataset: DatasetRef
    model: ModelRef
    defense: DefenseRef
    attack: LabelledRef
    recipe: LabelledRef
    knowledge: Literal["white-box", "gray-box", "black-box", "none"]
    budget: BudgetRef
    auxiliary: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: Count
    zero_shot: Outcome | None
    outcome: Outcome | None
    peak_accuracy: Share | None
    chosen_epoch: Count | None
    epochs: list[Epoch]
    stealth: dict[str, Measured] | None
    cost: Cost
    diagnostics: dict[str, Measured]
    lineage: Lineage
    environment: Environment
    created: str

    @model_validator(mode="after")
    def _status_agrees(self) -> Self:
        done = self.status == "done"
        if (self.outcome is not None) != done or (self.failure is None) != done:
            raise ValueError("a record that is done has an outcome and no failure, one that failed the reverse")
        for name, outcome in (("zero_shot", self.zero_shot), ("outcome", self.outcome)):
            if outcome is not None and outcome.items != self.dataset.test:
                raise ValueError(f"{name}: {outcome.items} items, but the dataset has {self.dataset.test} test items")
        return self
