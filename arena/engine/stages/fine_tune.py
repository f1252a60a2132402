"""Fine-tuning of the base model by a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from arena.engine.job import Grants, Job, attacker_world, party_seed
from arena.engine.stages.base import FORWARD, FROZEN, LEARNING, TOKENS, Artifact, Costs, Fields, Input, Stage, cost
from arena.errors import ArenaError
from arena.plugins.base import Attack, Recipe
from arena.plugins.spec import PluginSpec, load_model
from arena.recipes.config import TrainingConfig

ADAPTER, PROJECTOR = 2.5e6, 0.01
"""Parameters of adapters a rank at 7 billion parameters, which grow with their power of 2/3; the projector's share."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class TrainingPart:
    """An attack that enters training, with what it was granted."""

    attack: PluginSpec
    grants: Grants
    auxiliary: Input | None
    fitted: Input | None


@dataclass(frozen=True, kw_only=True)
class FineTune(Stage):
    """Weights by epoch, and the history by which one is kept."""

    kind = "fine-tuned"
    seconds_per_sample = 0.04

    model: PluginSpec
    recipe: PluginSpec
    training: tuple[TrainingPart, ...]
    seed: int
    samples: Input

    def compute(self, job: Job) -> None:
        from arena.recipes.training import fine_tune

        hooks = None
        for number, part in enumerate(self.training):
            attack = cast(Attack, part.attack.create())
            hooks = attack.training(attacker_world(job, part.grants, f"training.{number}."))
        recipe, seed = cast(Recipe, self.recipe.create()), party_seed("fine-tune", self.seed)
        fine_tune(load_model(self.model), recipe, job.samples("samples"), seed, job.folder, hooks, job.progress)

    def global_seed(self) -> int:
        return self.seed

    def add_to(self, fields: Fields, role: str, artifact: Artifact) -> None:
        fields["cost"]["finetune"] = cost([artifact])
        fields["lineage"]["checkpoint"] = artifact.manifest.digest
        fields["environment"] = artifact.manifest.environment

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
