"""A suite against the plugins that are installed: what would fail is found before anything runs."""

from __future__ import annotations

from contextlib import suppress

from arena.errors import UsageError
from arena.plugins.card import BrokenPlugin, Card
from arena.plugins.registry import Kind, Registry, near_misses
from arena.suites.parts import TARGET, PluginUse
from arena.suites.schema import Suite


def validate(suite: Suite, registry: Registry, apart: bool = False) -> None:
    """Find before anything runs what would fail: unknown plugins, bad settings, missing controls, too little data.

    Imports the plugins; with `apart` in processes of their own, and passes over those that cannot be described. Raises
    `UsageError` naming the place in the suite's file.
    """

    def configure(kind: Kind, id: str, config: object, *location: str | int) -> None:
        try:
            settings = config if isinstance(config, dict) else {}
            if apart:
                with suppress(BrokenPlugin):
                    Card.apart(registry, kind, id, settings)
            else:
                registry.configure(kind, id, settings)
        except UsageError as error:
            raise UsageError(f"{suite.where(*location)}: {error}") from error

    def surrogates(uses: tuple[PluginUse, ...], *location: str | int) -> None:
        for i, use in enumerate(uses):
            if use.id != TARGET:
                configure("model", use.id, use.config, *location, i)

    simple: tuple[tuple[Kind, str, tuple[PluginUse, ...]], ...] = (
        ("model", "models", suite.models),
        ("dataset", "datasets", suite.datasets),
        ("defense", "defenses", suite.defenses),
        ("recipe", "recipes", suite.recipes),
    )
    for kind, field, uses in simple:
        for i, use in enumerate(uses):
            configure(kind, use.id, use.config, field, i)
    surrogates(suite.surrogates, "surrogates")
    for i, defense in enumerate(suite.defenses):
        surrogates(defense.surrogates or (), "defenses", i, "surrogates")
    for i, attack in enumerate(suite.attacks):
        for id, config in attack.parts:
            configure("attack", id, config, "attacks", i)
    for field, uses in (*((field, uses) for _, field, uses in simple), ("attacks", suite.attacks)):
        labels = [use.label for use in uses]
        if again := [i for i, label in enumerate(labels) if label in labels[:i]]:
            raise UsageError(
                f"{suite.where(field, again[0])}: the label {labels[again[0]]!r} is already taken: give one a `label:` "
                "of its own"
            )
    recipes = [use.label for use in suite.recipes]
    for i, recipe in enumerate(suite.recipes):
        if recipe.sweep in recipes:
            raise UsageError(
                f"{suite.where('recipes', i)}: the sweep {recipe.sweep!r} has a recipe's label: give it another name"
            )
    for field, uses in (("defenses", suite.defenses), ("attacks", suite.attacks)):
        if not any(use.id == "none" for use in uses):
            raise UsageError(f"{suite.where(field)}: the control 'none' is missing: add `none` to the {field}")
    budgets = {b.image for use in suite.defenses for b in use.budgets or suite.budgets}
    for i, skip in enumerate(suite.skip):
        for budget in skip.budgets or ():
            if budget not in budgets:
                there = ", ".join(f"{b:g}" for b in sorted(budgets))
                where = suite.where("skip", i, "budgets")
                raise UsageError(f"{where}: no budget has an image bound of {budget:g} (there are {there})")
        for field, names in skip.model_dump(exclude_none=True, exclude={"budgets"}).items():
            known = [use.label for use in getattr(suite, field)]
            known += dict.fromkeys(use.sweep for use in suite.recipes if use.sweep) if field == "recipes" else ()
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"{suite.where('skip', i, field)}: {name!r} is not a label among the {field}"
                        f"{near_misses(name, known)} (there are {', '.join(known)})"
                    )
    shares: dict[str, float] = {}
    for found in suite.combinations():
        label = found.dataset.label
        shares[label] = max(shares.get(label, 0), suite.share(found.attack))
    if not shares:
        raise UsageError(f"{suite.where('skip')}: nothing is left: skip less")
    for i, dataset in enumerate(suite.datasets):
        wanted = shares.get(dataset.label, 0)
        if dataset.auxiliary < (count := round(wanted * dataset.train)):
            raise UsageError(
                f"{suite.where('datasets', i)}: attackers are granted {wanted:g} of {dataset.train} training samples, "
                f"and there are {dataset.auxiliary} auxiliary ones: set `auxiliary: {count}` on the dataset"
            )
