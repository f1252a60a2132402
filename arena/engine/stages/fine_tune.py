"""Fine-tuning of the base model by a recipe."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arena.engine.job import Desk, Grants, Job, attacker_world, party_seed
from arena.engine.stages.base import (
    FORWARD,
    FROZEN,
    LEARNING,
    TOKENS,
    Artifact,
    Costs,
    Fields,
    Input,
    Stage,
    cost,
    read_made,
)
from arena.errors import ArenaError
from arena.plugins.base import Attack, Recipe
from arena.plugins.identity import digest_of
from arena.plugins.spec import PluginSpec, load_model
from arena.recipes.config import TrainingConfig

if TYPE_CHECKING:
    from arena.recipes.packing import Member

ADAPTER, PROJECTOR = 2.5e6, 0.01
"""Parameters of adapters a rank at 7 billion parameters, which grow with their power of 2/3; the projector's share."""

HISTORY = "history.json"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class TrainingPart:
    """An attack that enters training, with what it was granted."""

    attack: PluginSpec
    grants: Grants
    auxiliary: Input | None
    fitted: Input | None
    notes: Input | None = None


@dataclass(frozen=True, kw_only=True)
class FineTune(Stage):
    """Weights by epoch, and the history by which one is kept."""

    kind = "fine-tuned"
    seconds_per_sample = 0.04
    preload = (*Stage.preload, "arena.recipes.training")

    model: PluginSpec
    recipe: PluginSpec
    training: tuple[TrainingPart, ...]
    seed: int
    samples: Input

    def hand_over(self, job: Job, given: Path) -> None:
        for role in self.inputs:
            part = role.split(".")
            granted = self.training[int(part[1])].grants.granted if role.endswith(".auxiliary") else None
            self.copy(job, role, given, granted)

    def run(self, desk: Desk) -> None:
        self.train(desk)

    def train(self, desk: Desk, member: Member | None = None) -> None:
        """As `run`, alone or as a member of a pack."""
        from arena.recipes.training import fine_tune

        hooks = None
        for number, part in enumerate(self.training):
            attack = cast(Attack, part.attack.create())
            hooks = attack.training(attacker_world(desk, part.grants, f"training.{number}."))
        recipe, seed = cast(Recipe, self.recipe.create()), party_seed("fine-tune", self.seed)
        lvlm, samples = load_model(self.model), desk.samples("samples")
        fine_tune(lvlm, recipe, samples, seed, desk.made, hooks, desk.progress, member)

    @cached_property
    def pack(self) -> tuple[str, int] | None:
        asked, limit = self.recipe.config, self.recipe.runtime.get("pack", 1)
        plain = (asked.get("precision"), asked.get("gradient_accumulation"), asked.get("gradient_checkpointing"))
        if self.training or not self.recipe.packs or plain != ("float32", 1, False) or limit < 2:
            return None
        parts = [[spec.made_by, spec.runtime] for spec in (self.model, self.recipe)]
        return digest_of({"parts": parts}), int(limit)

    def collect(self, job: Job, made: Path) -> None:
        check_history(read_made(made / HISTORY, HISTORY), sorted(p.name for p in made.glob("epoch-*.safetensors")))
        for path in made.iterdir():
            if path.name == HISTORY or path.suffix == ".safetensors":
                shutil.copy(path, job.folder / path.name)

    def global_seed(self) -> int:
        return self.seed

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["cost"]["finetune"] = cost([artifact])
        fields["lineage"]["checkpoint"] = artifact.manifest.digest
        fields["environment"] = artifact.manifest.environment

    @property
    def plugin(self) -> str:
        attacks = [f"attack {part.attack.id!r}" for part in self.training]
        return " with ".join([f"recipe {self.recipe.id!r}", *attacks])

    def flops(self, costs: Costs) -> float:
        recipe = cast(Recipe, costs.plugin(self.recipe))
        config = training_config(recipe)
        step = float(FORWARD + (LEARNING if "all" in recipe.parts else FROZEN))
        step += FORWARD if config.gradient_checkpointing else 0
        for part in self.training:
            effort = cast(Attack, costs.plugin(part.attack)).effort()
            step += effort.gradients * (FORWARD + FROZEN) + effort.forwards * FORWARD
        passes = config.epochs * costs.samples(self.samples.stage) * (7 / 8 * step + 1 / 8 * FORWARD)
        return passes * TOKENS * costs.parameters(self.model)

    def disk(self, costs: Costs) -> float:
        recipe, parameters = cast(Recipe, costs.plugin(self.recipe)), costs.parameters(self.model)
        width = BYTES.get(str(self.model.config.get("dtype")), 4)
        if "all" in recipe.parts:
            kept = parameters * width
        else:
            adapters = ADAPTER * recipe.rank * (parameters / 7e9) ** (2 / 3) * BYTES["float32"]
            kept = adapters * ("adapters" in recipe.parts) + PROJECTOR * parameters * width * (
                "projector" in recipe.parts
            )
        return epochs_kept(recipe) * kept


@dataclass(frozen=True)
class Together:
    """Fine-tunings of one model and recipe in one process, see `arena.recipes.packing`; each has a folder of its number
    in what is given and what is made."""

    stages: tuple[FineTune, ...]
    preload: ClassVar[tuple[str, ...]] = FineTune.preload
    network: ClassVar[bool] = False

    @property
    def plugin(self) -> str:
        """Whose failure it is."""
        return self.stages[0].plugin

    def plugins(self) -> dict[str, PluginSpec]:
        """The plugins that run, by their places."""
        return self.stages[0].plugins()

    def global_seed(self) -> int:
        """As a stage's; each training seeds its own again."""
        return self.stages[0].global_seed()

    def run(self, desk: Desk) -> None:
        """Do the plugins' part of all."""
        from arena.recipes.packing import train_together

        done = [0.0] * len(self.stages)

        def train(number: int, member: Member) -> None:
            def tell(share: float, note: str) -> None:
                done[number] = share
                desk.progress(sum(done) / len(done), f"{note}, one of {len(done)}")

            own = Desk(desk.given / str(number), desk.made / str(number), None, tell)
            self.stages[number].train(own, member)

        train_together([partial(train, number) for number in range(len(self.stages))])


def training_config(recipe: Recipe) -> TrainingConfig:
    """The recipe's settings of the loop. Raises `ArenaError` where its `Config` is of another kind."""
    if not isinstance(recipe.config, TrainingConfig):
        raise ArenaError(
            f"recipe {type(recipe).__name__}: its Config must derive from arena.recipes.config.TrainingConfig"
        )
    return recipe.config


def epochs_kept(recipe: Recipe) -> int:
    """How many epochs a recipe leaves on disk, each of which is scored."""
    config = training_config(recipe)
    return config.epochs if config.checkpoints == "all" else 1


class _Epoch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    loss: float
    held_out_loss: float
    held_out_accuracy: float


class _History(BaseModel):
    model_config = ConfigDict(strict=True)

    chosen: Annotated[int, Field(ge=0)]
    epochs: list[_Epoch]


def check_history(history: Any, kept: Sequence[str]) -> None:
    """Refuse what is no history of a training, and a training that diverged. Raises `ArenaError`."""
    try:
        read = _History.model_validate(history)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArenaError(f"{HISTORY} is not that of a training ({where}: {first['msg']})") from None
    chosen, numbers = read.chosen, [(e.loss, e.held_out_loss, e.held_out_accuracy) for e in read.epochs]
    if not (chosen < len(numbers) and f"epoch-{chosen}.safetensors" in kept):
        raise ArenaError(f"{HISTORY} chooses epoch {chosen}, whose weights were not kept")
    for number, values in enumerate(numbers):
        if not all(map(math.isfinite, values)):
            loss, held_out = map(_said, values[:2])
            raise ArenaError(
                f"the training diverged: its loss is {loss} in epoch {number + 1} of {len(numbers)}, and on held-out "
                f"samples {held_out}; lower the learning rate, or look at what the attack makes of the loss"
            )
        if not 0 <= values[2] <= 1:
            raise ArenaError(f"{HISTORY} has an accuracy of {values[2]:g} in epoch {number + 1}")


def _said(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite" if math.isinf(value) else f"{value:g}"
