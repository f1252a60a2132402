"""What a suite is made of: plugins with their settings, data, limits, and what is left out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from arena.budget import Budget
from arena.plugins.registry import ID

TARGET = "target"
"""As a surrogate: the model of the cell itself, that is, a white-box defender."""


def _plugin_id(value: str) -> str:
    if not all(ID.fullmatch(part) for part in value.split("+")):
        raise ValueError("an id is made of lower case letters, digits and hyphens")
    return value


def _json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)
    return value


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values. Raises `ValueError` for one that is there twice."""
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value!r} is there twice: remove one")
        seen.add(value)
    return values


def _labelled(id: str, config: object, extra: dict[str, Any] | None = None) -> str:
    settings = {**(config if isinstance(config, dict) else {}), **(extra or {})}
    listed = ", ".join(f"{k}={v if isinstance(v, str) else json.dumps(v, default=str)}" for k, v in settings.items())
    return f"{id}({listed})" if listed else id


class Part(BaseModel):
    """What a suite file holds: no other field than these, and none that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PluginUse(Part):
    """A plugin with its settings. In a file also the bare id."""

    id: Annotated[str, AfterValidator(_plugin_id)] = Field(description="as `arena list` shows it")
    config: Annotated[dict[str, JsonValue], AfterValidator(_json)] = Field(
        default_factory=dict, description="settings by name, as `arena show ID` lists them; defaults for the others"
    )
    label: str = Field(default="", description="what the board prints; by default the id with the settings given")

    @model_validator(mode="before")
    @classmethod
    def _normal_form(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"id": value}
        if isinstance(value, dict) and isinstance(value.get("id"), str) and "label" not in value:
            value = {**value, "label": cls._default_label(value)}
        return value

    @staticmethod
    def _default_label(value: dict[str, Any]) -> str:
        return _labelled(value["id"], value.get("config"))


class DatasetUse(PluginUse):
    """A dataset with the sizes of its splits and the seed that draws them.

    The questions of `glyphs` and `emoji` are of several kinds, from which `train_kinds` and `test_kinds` in `config`
    choose. Where these differ the split is a cross-task one: a release asks for one thing, the test for another, as in
    ``{id: emoji, config: {train_kinds: [kind], test_kinds: [group, alive]}, train: 256, test: 500}``. A kind cannot be
    on both sides beside others that are not; without `test_kinds` the test asks what training asks.
    """

    train: int = Field(ge=1, description="samples that the owner releases")
    auxiliary: int = Field(
        default=0, ge=0, description="public samples beside the training data, for attackers and defenders"
    )
    test: int = Field(ge=1, description="samples that the fine-tuned model is scored on")
    seed: int = Field(default=0, ge=0, description="of the draw of the splits, the same for all seeds of the cells")


Surrogates = Annotated[
    tuple[PluginUse, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]
Budgets = Annotated[tuple[Budget, ...], Field(min_length=1), AfterValidator(unique)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Clean samples per released one; above 1 where an attacker has more of their own than of the release."""


class DefenseUse(PluginUse):
    """A defense; it may have budgets and surrogates of its own instead of the suite's."""

    budgets: Budgets | None = Field(default=None, description="instead of the suite's")
    surrogates: Surrogates | None = Field(default=None, description="instead of the suite's")

    @staticmethod
    def _default_label(value: dict[str, Any]) -> str:
        chosen = value.get("surrogates")
        chosen = chosen if isinstance(chosen, list | tuple) else [chosen] if chosen else []
        names = [str(s.get("id") if isinstance(s, dict) else s.id if isinstance(s, PluginUse) else s) for s in chosen]
        return _labelled(value["id"], value.get("config"), {"surrogates": "+".join(names)} if names else {})


class AttackUse(PluginUse):
    """An attack, or a sequence ``a+b`` whose `config` is keyed by part; it may have an auxiliary share of its own."""

    auxiliary: Share | None = Field(
        default=None,
        description="clean samples of the attacker's own, instead of the suite's; of an attack that needs `originals`, "
        "so many of the released samples as they were",
    )

    @property
    def parts(self) -> tuple[tuple[str, dict[str, JsonValue]], ...]:
        """The attacks in order, each with its settings."""
        ids = self.id.split("+")
        if len(ids) == 1:
            return ((self.id, self.config),)
        configs = ((id, self.config.get(id, {})) for id in ids)
        return tuple((id, config if isinstance(config, dict) else {}) for id, config in configs)

    @model_validator(mode="after")
    def _keyed_by_part(self) -> AttackUse:
        ids = self.id.split("+")
        for key, value in self.config.items() if len(ids) > 1 else ():
            if key not in ids or not isinstance(value, dict):
                raise ValueError(f"the config of {self.id!r} is keyed by its parts, such as {{{ids[0]}: {{...}}}}")
        return self

    @staticmethod
    def _default_label(value: dict[str, Any]) -> str:
        share = value.get("auxiliary")
        extra = {} if share is None else {"auxiliary": share}
        ids, config = value["id"].split("+"), value.get("config")
        if len(ids) == 1:
            return _labelled(value["id"], config, extra)
        config = config if isinstance(config, dict) else {}
        return _labelled("+".join(_labelled(id, config.get(id)) for id in ids), None, extra)


Values = Annotated[tuple[JsonValue, ...], Field(min_length=1)]
Grid = Annotated[dict[str, Values], Field(min_length=1), AfterValidator(_json)]
MEMBERS = 1000
"""Combinations of a grid, at most."""


class RecipeUse(PluginUse):
    """A recipe, or with a `grid` one for each combination of its values.

    Recipes of one `sweep` are a choice of the fine-tuner, who trains by each and keeps the one that is best on the data
    that they hold out of their own. The board has it as a recipe of that name, beside its members::

        recipes:
          - {id: lora, sweep: swept, grid: {learning_rate: [0.001, 0.004], rank: [4, 16]}, trials: 3}
          - {id: full, sweep: swept, config: {learning_rate: 0.001}}
    """

    sweep: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="name of the choice that it is a member of; boards print it as a recipe's label"
    )
    grid: Grid | None = Field(
        default=None, description="settings by name, each with the values to try; all combinations, unless `trials`"
    )
    trials: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="as many combinations of the grid, drawn at random, always the same ones"
    )
    clean_cost: float = Field(
        default=0.05,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="the choice is among the recipes whose accuracy on held-out clean data, without protection and "
        "attack, is at most so far below that of the best; the same for all of a sweep",
    )

    @model_validator(mode="after")
    def _of_a_sweep(self) -> RecipeUse:
        if self.grid is None:
            if self.trials is not None:
                raise ValueError("`trials` is how many combinations of a `grid` are tried: add the grid")
            return self
        if self.sweep is None:
            raise ValueError("a `grid` needs a `sweep`, the name of the choice among its recipes")
        for name, values in self.grid.items():
            if name in self.config:
                raise ValueError(f"{name!r} is in `config` and in `grid`: remove one")
            if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
                raise ValueError(f"a value of {name!r} is in the grid twice: remove one")
        count = prod(map(len, self.grid.values()))
        tried = self.trials or count
        if tried > MEMBERS:
            raise ValueError(f"at most {MEMBERS} recipes, not {tried}: set `trials`, or try fewer values")
        if self.trials is not None and self.trials > count:
            raise ValueError(f"the grid has {count} combinations, not {self.trials}: lower `trials`")
        return self

    def members(self) -> list[RecipeUse]:
        """One recipe for each combination that is tried, in the order of the grid; itself where there is no grid."""
        if self.grid is None:
            return [self]
        sizes = [len(values) for values in self.grid.values()]
        numbers: Sequence[int] = range(prod(sizes))
        if self.trials is not None:
            text = json.dumps(self.grid, sort_keys=True, ensure_ascii=False)
            draw = random.Random(hashlib.sha256(text.encode()).digest())
            numbers = sorted(draw.sample(numbers, self.trials))
        own = "" if self.label == _labelled(self.id, self.config) else self.label
        return [self._member(number, sizes, own) for number in numbers]

    def _member(self, number: int, sizes: list[int], label: str) -> RecipeUse:
        assert self.grid is not None
        point: dict[str, JsonValue] = {}
        for (name, values), size in reversed(list(zip(self.grid.items(), sizes, strict=True))):
            number, at = divmod(number, size)
            point[name] = values[at]
        point = dict(reversed(point.items()))
        name = _labelled(label, point) if label else _labelled(self.id, {**self.config, **point})
        update = {"config": {**self.config, **point}, "label": name, "grid": None, "trials": None}
        return self.model_copy(update=update)


def with_members(uses: tuple[RecipeUse, ...]) -> tuple[RecipeUse, ...]:
    """The recipes, each sweep as those that it chooses from. Raises `ValueError` where they do not go together."""
    found = tuple(member for use in uses for member in use.members())
    bounds: dict[str, float] = {}
    for use in found:
        if use.sweep is not None and bounds.setdefault(use.sweep, use.clean_cost) != use.clean_cost:
            raise ValueError(
                f"the recipes of the sweep {use.sweep!r} have a `clean_cost` of {bounds[use.sweep]:g} and of "
                f"{use.clean_cost:g}: give all the same"
            )
    return found


class Limits(Part):
    """What a stage may take before it counts as failed."""

    stage_minutes: float = Field(
        default=60,
        gt=0,
        le=60 * 24 * 30,
        allow_inf_nan=False,
        description="a stage that takes longer is ended, and its cells fail",
    )
    stage_memory_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="a stage that takes more memory is ended; by default nine tenths of the machine's, shared evenly "
        "among the stages that run at a time",
    )
    stage_output_gb: float = Field(
        default=50, gt=0, allow_inf_nan=False, description="a stage that writes more to files is ended"
    )


Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Skip(Part):
    """Combinations to leave out: those that are in every list given, by the labels that the board prints."""

    models: Names | None = Field(default=None, description="labels of models")
    datasets: Names | None = Field(default=None, description="labels of datasets")
    recipes: Names | None = Field(default=None, description="labels of recipes, or names of sweeps")
    defenses: Names | None = Field(default=None, description="labels of defenses")
    attacks: Names | None = Field(default=None, description="labels of attacks")
    budgets: Annotated[tuple[float, ...], Field(min_length=1)] | None = Field(
        default=None, description="image budgets, in 1/255, or pixels"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Skip:
        if not self.model_fields_set:
            raise ValueError(
                "it names nothing to leave out: give at least one of " + ", ".join(type(self).model_fields)
            )
        return self

    def covers(self, combination: Mapping[str, str | float]) -> bool:
        """Whether a combination, by field, is in every list given; `sweep` is that of its recipe."""
        lists = self.model_dump(exclude_none=True)
        return all(
            combination[field] in wanted or (field == "recipes" and combination["sweep"] in wanted)
            for field, wanted in lists.items()
        )


class Embedding(Part):
    """A sentence embedding: a text encoder of transformers, whose token vectors are averaged. In a file also the bare
    id."""

    id: str = Field(min_length=1, description="hub id or folder, such as `sentence-transformers/all-MiniLM-L6-v2`")
    revision: str = Field(default="main", min_length=1, description="branch, tag or commit of a hub id")

    @model_validator(mode="before")
    @classmethod
    def _normal_form(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value


class Meaning(Part):
    """How it is measured what attacks that rewrite questions cost in meaning, on clean data. The base model's accuracy
    on the rewritten questions is always measured. A record that is there already is not made again for it."""

    embedding: Embedding | None = Field(
        default=None, description="measure the similarity of questions before and after by this one, too"
    )


class Tiny(Part):
    """What is small in a dry run with ``--tiny``, see `arena.suites.dry_run`; no part of what the suite is."""

    samples: int = Field(default=8, ge=2, description="training and auxiliary samples together, shared as in the suite")
    test: int = Field(default=4, ge=1, description="test items")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(unique)] = Field(
        default=(0,), description="instead of the suite's"
    )
    settings: Annotated[dict[str, JsonValue], AfterValidator(_json)] = Field(
        default_factory=dict, description="laid over those of every plugin that has a setting of the name"
    )
    cover: bool = Field(
        default=True, description="only so many combinations that each dataset, model, recipe and attack is met once"
    )
