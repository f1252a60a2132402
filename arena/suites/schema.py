"""A suite file: which defenses meet which attacks, on which models, data, budgets and seeds.

The schema is `Suite`; a plugin is named by its id alone, or by a mapping with its settings::

    id: quick
    title: Quick suite
    models: [tiny-llava]
    datasets: [{id: glyphs, train: 256, test: 300}]
    defenses: [none, random, {id: em, config: {rounds: 4}}]
    attacks: [none, {id: jpeg+case, config: {jpeg: {quality: 30}}}]
    recipes: [lora]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
)

from arena.budget import Budget
from arena.errors import UsageError
from arena.plugins.registry import ID, near_misses
from arena.suites.parts import (
    TARGET,
    AttackUse,
    Budgets,
    DatasetUse,
    DefenseUse,
    Embedding,
    Limits,
    Meaning,
    Part,
    PluginUse,
    RecipeUse,
    Share,
    Skip,
    Surrogates,
    Tiny,
    unique,
    with_members,
)
from arena.suites.yaml_lines import Document, Location, read_yaml
from arena.text import shortened


class Combination(NamedTuple):
    """What a cell is but for its seed."""

    dataset: DatasetUse
    model: PluginUse
    recipe: RecipeUse
    defense: DefenseUse
    budget: Budget
    attack: AttackUse

    @property
    def names(self) -> dict[str, str | float]:
        """By the fields of `Skip`."""
        return {
            "datasets": self.dataset.label,
            "models": self.model.label,
            "recipes": self.recipe.label,
            "defenses": self.defense.label,
            "attacks": self.attack.label,
            "budgets": self.budget.image,
        }


class Suite(Part):
    """What meets what. Every combination of the lists is a cell, but for those that `skip` leaves out."""

    id: str = Field(
        pattern=f"^{ID.pattern}$", max_length=100, description="name of the suite and of its files of records and board"
    )
    title: str = Field(default="", description="for people")
    description: str = Field(default="", description="for people: what the suite asks, and what it leaves out")
    models: tuple[PluginUse, ...] = Field(min_length=1, description="base models that are fine-tuned")
    datasets: tuple[DatasetUse, ...] = Field(min_length=1, description="what is released, trained on and scored")
    surrogates: Surrogates = Field(
        default=(PluginUse(id=TARGET),),
        description="models that defenses craft on; `target` is the cell's own model, which makes the cell white-box",
    )
    defenses: tuple[DefenseUse, ...] = Field(min_length=1, description="protections; the control `none` among them")
    attacks: tuple[AttackUse, ...] = Field(min_length=1, description="what the fine-tuner does; `none` among them")
    recipes: Annotated[tuple[RecipeUse, ...], AfterValidator(with_members)] = Field(
        min_length=1, description="how the fine-tuner trains"
    )
    budgets: Budgets = Field(default=(Budget(),), description="how much defenses may change; each is an axis")
    auxiliary: Share = Field(
        default=0, description="clean samples of the attacker's own, as a share of the training size"
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(unique)] = Field(
        default=(0, 1, 2), description="repetitions, over which intervals are taken"
    )
    skip: tuple[Skip, ...] = Field(default=(), description="combinations to leave out")
    meaning: Meaning = Field(default=Meaning(), description="how the meaning of rewritten questions is measured")
    limits: Limits = Field(default=Limits(), description="what a stage may take")
    tiny: Tiny = Field(default=Tiny(), description="what is small under `--tiny`; no part of what the suite is")

    _document: Document | None = PrivateAttr(default=None)

    def where(self, *location: str | int) -> str:
        """``quick.yaml, line 12, attacks[1].config`` for a place in the suite, as errors name it."""
        document = self._document or Document(f"suite {self.id!r}")
        if location[0] == "recipes" and len(location) > 1 and isinstance(document.data, dict):
            listed = [RecipeUse.model_validate(use) for use in document.data["recipes"]]
            entries = [number for number, use in enumerate(listed) for _ in use.members()]
            location = ("recipes", entries[int(location[1])], *location[2:])
        return document.where(location)

    def combinations(self) -> Iterator[Combination]:
        """Every combination that is not skipped, in the suite's order. The control has one for all budgets, since it
        changes nothing."""
        for dataset, model, recipe, defense in product(self.datasets, self.models, self.recipes, self.defenses):
            budgets = defense.budgets or self.budgets
            for budget, attack in product(budgets[:1] if defense.id == "none" else budgets, self.attacks):
                found = Combination(dataset, model, recipe, defense, budget, attack)
                names = {**found.names, "sweep": recipe.sweep or ""}
                if not any(skip.covers(names) for skip in self.skip):
                    yield found

    def share(self, attack: AttackUse) -> float:
        """Clean samples of the attacker's own, as a share of the training size."""
        return self.auxiliary if attack.auxiliary is None else attack.auxiliary


def digest(suite: Suite) -> str:
    """SHA-256 (hex) of what the suite says, without its title and description, and without its dry run."""
    content = suite.model_dump(mode="json", exclude={"title", "description", "tiny"})
    content["limits"] = {"stage_minutes": content["limits"]["stage_minutes"]}  # the others change no result
    for use in content["recipes"]:
        choice = {name: use.pop(name) for name in ("sweep", "grid", "trials", "clean_cost")}
        if choice["sweep"] is not None:
            use |= {"sweep": choice["sweep"], "clean_cost": choice["clean_cost"]}
    if suite.meaning == Meaning():
        del content["meaning"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_suite(path: Path | str) -> Suite:
    """Read a suite file (YAML, UTF-8). Raises `UsageError` naming file, line and field; plugins are not looked up."""
    document = read_yaml(Path(path))
    try:
        suite = Suite.model_validate(document.data)
    except ValidationError as error:
        raise UsageError(_problems(error, document)) from None
    suite._document = document
    return suite


_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Suite,
    ("models",): PluginUse,
    ("datasets",): DatasetUse,
    ("surrogates",): PluginUse,
    ("defenses",): DefenseUse,
    ("defenses", "budgets"): Budget,
    ("defenses", "surrogates"): PluginUse,
    ("attacks",): AttackUse,
    ("recipes",): RecipeUse,
    ("budgets",): Budget,
    ("skip",): Skip,
    ("meaning",): Meaning,
    ("meaning", "embedding"): Embedding,
    ("limits",): Limits,
    ("tiny",): Tiny,
}


def _problems(error: ValidationError, document: Document) -> str:
    """One paragraph that names the first few places."""
    found = {e["loc"]: e for e in error.errors(include_url=False)}
    # A bad item also makes its list too short: the item is what to mend.
    causes = [e for at, e in found.items() if not any(other[: len(at)] == at for other in found if other != at)]
    causes.sort(key=lambda e: document.line(e["loc"]))
    texts = [f"{document.where(e['loc'])}: {_problem(e)}" for e in causes[:3]]
    more = f" (and {len(causes) - 3} more)" if len(causes) > 3 else ""
    return "; ".join([texts[0], *(text.removeprefix(f"{document.source}, ") for text in texts[1:])]) + more


def _problem(error: Any) -> str:
    location: Location = error["loc"]
    if error["type"] == "extra_forbidden":
        model = _MODELS.get(tuple(part for part in location[:-1] if isinstance(part, str)))
        known = list(model.model_fields) if model else []
        return f"there is no such field{near_misses(str(location[-1]), known)} (fields: {', '.join(known)})"
    if error["type"] == "missing":
        return "the field is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message.replace("Tuple", "List").replace("tuple", "list")
    if error["type"] == "model_type":
        message = "Input should be a mapping of fields, or for a plugin its id"
    given = "" if isinstance(error["input"], dict | list | tuple) else f", not {shortened(repr(error['input']), 200)}"
    return message + given
