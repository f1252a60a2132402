"""A suite as a graph of stages. Pure: computes nothing, loads no torch.

A stage is named by what it asks: the kind, the plugins with their settings and fingerprints, the seed where it is used,
and the names of the stages it reads. Whoever asks for the same gets the same stage, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from arena.budget import Budget
from arena.controls import bounds
from arena.engine.describe import Plugins, knowledge
from arena.engine.graph import Broken, Cell, Plan
from arena.engine.job import NOTES, Grants
from arena.engine.stages import (
    Data,
    FineTune,
    Fit,
    Input,
    Meaning,
    Purify,
    Release,
    Score,
    Similarity,
    Stage,
    Stealth,
    TrainingPart,
    ZeroShot,
)
from arena.errors import UsageError
from arena.plugins.card import BrokenPlugin, Card
from arena.plugins.identity import CONTROL, PROTOCOL_VERSION
from arena.plugins.registry import Registry
from arena.plugins.spec import PluginSpec
from arena.records.bulk import bulk
from arena.records.schema import Asked, AttackRef, BudgetRef, DatasetRef, DefenseRef, ModelRef, RecipeRef
from arena.store.local import Store
from arena.suites.parts import TARGET, AttackUse, DatasetUse, DefenseUse, PluginUse, RecipeUse
from arena.suites.schema import Combination, Suite, digest
from arena.text import bound_text

T = TypeVar("T")


def plan(suite: Suite, registry: Registry, store: Store, estimate: bool = False, apart: bool = False) -> Plan:
    """The plan of a validated suite. With `estimate` it may name hub ids whose commit cannot be found out. With `apart`
    no plugin runs in this process, and cells of a plugin that cannot be described are `Plan.broken`.

    Raises `UsageError` where the suite asks for what its plugins cannot do, `UnresolvedRevision` for such a hub id.
    """
    builder = _Builder(suite, Plugins(registry, estimate, apart))
    with bulk():
        cells = tuple(builder.cells())
    return Plan(suite, digest(suite), cells, builder.stages, store, tuple(builder.broken))


def planned_cells(suite: Suite, registry: Registry, apart: bool = False) -> list[Cell]:
    """The cells of a validated suite, for whom no store is needed; `apart` as in `plan`."""
    with bulk():
        return list(_Builder(suite, Plugins(registry, apart=apart)).cells())


@dataclass(frozen=True)
class _Data:
    """A dataset in use: the stages of its splits, what records say of it, and how answers are scored."""

    use: DatasetUse
    reference: DatasetRef
    convention: str
    measures: tuple[str, ...]
    train: str
    auxiliary: Data
    test: str


@dataclass(frozen=True)
class _Model:
    label: str
    spec: PluginSpec
    reference: ModelRef


@dataclass(frozen=True)
class _Attack:
    """An attack in use: what each of its parts says of itself, and what records say of it."""

    parts: tuple[tuple[Card, PluginSpec], ...]
    needs: frozenset[str]
    """What any part reads beside the samples."""
    rewrites: bool
    """Whether any part may change questions."""
    reference: AttackRef


@dataclass(frozen=True)
class _Chain:
    """What an attack makes of a release, and what it does to training."""

    purified: str
    stages: tuple[str, ...]
    training: tuple[TrainingPart, ...]


class _Builder:
    def __init__(self, suite: Suite, plugins: Plugins) -> None:
        self.suite, self.plugins = suite, plugins
        self.stages: dict[str, Stage] = {}
        self.broken: list[Broken] = []
        """Cells that cannot be planned."""
        self._known: dict[tuple[object, ...], Any] = {}

    def cells(self) -> Iterable[Cell]:
        suite = self.suite
        data, models = dict[str, _Data](), dict[str, _Model]()
        for found in suite.combinations():
            for seed in suite.seeds:
                try:
                    if found.dataset.label not in data:
                        data[found.dataset.label] = self._data(found.dataset)
                    if found.model.label not in models:
                        models[found.model.label] = self._model(found.model)
                    yield self._cell(data[found.dataset.label], models[found.model.label], found, seed)
                except BrokenPlugin as error:
                    parts = (found.dataset, found.model, found.recipe, found.defense, found.attack)
                    label = " · ".join(use.label for use in parts)
                    self.broken.append(Broken(f"{label} · seed {seed}", str(error)))

    def _cell(self, data: _Data, model: _Model, found: Combination, seed: int) -> Cell:
        defense, attack, recipe, budget = found.defense, found.attack, found.recipe, found.budget
        share, on, by = self.suite.share(attack), data.use.label, (defense.label, model.label)
        surrogates = self._once(("surrogates", *by), lambda: self._surrogates(defense, model))
        release, knows = self._once(
            ("release", on, *by, budget, seed), lambda: self._release(data, defense, surrogates, budget, seed)
        )
        tried = self._once(("attack", attack.label), lambda: self._attack(attack))
        reads = model.label if "model" in tried.needs else None, seed if "seed" in tried.needs else None
        chain = self._once(
            ("chain", on, attack.label, release, *reads),
            lambda: self._chain(data, tried, release, model, share, seed),
        )
        spec, trained = self._once(("recipe", recipe.label), lambda: self._recipe(recipe))
        about = f"{recipe.label} on {defense.label} / {attack.label}, seed {seed}"
        tuned = self._add(
            FineTune(
                label=about,
                size=data.use.train,
                model=model.spec,
                recipe=spec,
                training=chain.training,
                seed=seed,
                samples=Input(chain.purified, "samples"),
            )
        )
        scored = Score(
            label=about,
            size=data.use.test,
            model=model.spec,
            recipe=spec,
            convention=data.convention,
            measures=data.measures,
            seed=seed,
            adapter=Input(tuned),
            test=Input(data.test, "samples"),
        )
        reader = surrogates[0] if knows else model
        stages = {
            "train": data.train,
            "test": data.test,
            "zero-shot": self._once(("zero-shot", on, model.label), lambda: self._zero_shot(data, model)),
            "release": release,
            "stealth": self._once(
                ("stealth", on, release, reader.label), lambda: self._stealth(data, release, reader, defense.label)
            ),
            "purified": chain.purified,
            "fine-tuned": tuned,
            "scored": self._add(scored),
        }
        # Of a release, an attack that takes a protection's words out would seem to cost meaning: clean data tell.
        if tried.rewrites and defense.id == CONTROL:
            stages |= self._once(
                ("meaning", on, chain.purified, model.label),
                lambda: self._meaning(data, model, chain.purified, attack.label),
            )
        bound = bound_text(budget.norm, budget.image)
        label = f"{data.use.label} · {model.label} · {recipe.label} · {defense.label} ({bound})"
        asked = Asked(
            protocol_version=PROTOCOL_VERSION,
            dataset=data.reference,
            model=model.reference,
            defense=self._once(
                ("defense", *by), lambda: self._defense(defense, [s.reference for s in surrogates if knows])
            ),
            attack=tried.reference,
            recipe=trained,
            knowledge=knowledge(model.reference, [s.reference for s in surrogates]) if knows else "none",
            budget=self._once(("budget", budget), lambda: BudgetRef.model_validate(budget.model_dump(mode="json"))),
            auxiliary=share,
            seed=seed,
        )
        return Cell(asked, f"{label} · {attack.label} · seed {seed}", stages, chain.stages)

    def _once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made once for a key: what it is, and the labels of all that it depends on."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    # Stages

    def _add(self, stage: Stage) -> str:
        self.stages.setdefault(stage.name, stage)
        return stage.name

    def _labelled(self, spec: PluginSpec, use: PluginUse) -> dict[str, object]:
        return {**self.plugins.reference(spec).model_dump(), "label": use.label}

    def _recipe(self, use: RecipeUse) -> tuple[PluginSpec, RecipeRef]:
        spec = self.plugins.plugin("recipe", use.id, use.config)[1]
        choice = {} if use.sweep is None else {"sweep": use.sweep, "clean_cost": use.clean_cost}
        return spec, RecipeRef.model_validate({**self._labelled(spec, use), **choice})

    def _defense(self, use: DefenseUse, surrogates: list[ModelRef]) -> DefenseRef:
        spec = self.plugins.plugin("defense", use.id, use.config)[1]
        return DefenseRef.model_validate({**self._labelled(spec, use), "surrogates": surrogates})

    def _attack(self, use: AttackUse) -> _Attack:
        parts = tuple(self.plugins.plugin("attack", part, config) for part, config in use.parts)
        references = [self.plugins.reference(spec) for _, spec in parts]
        needs = frozenset(need for card, _ in parts for need in card.needs)
        reasons = "; ".join(dict.fromkeys(card.in_domain for card, _ in parts if card.in_domain))
        chooses = any(card.chooses for card, _ in parts)
        declared = AttackRef(label=use.label, parts=references, chooses=chooses, in_domain=reasons or None)
        return _Attack(parts, needs, any(card.rewrites for card, _ in parts), declared)

    def _model(self, use: PluginUse) -> _Model:
        return _Model(use.label, *self.plugins.model(use.id, use.config))

    def _data(self, use: DatasetUse) -> _Data:
        dataset, spec = self.plugins.plugin("dataset", use.id, use.config)
        sizes = {"train": use.train, "auxiliary": use.auxiliary, "test": use.test}

        def split(name: Literal["train", "auxiliary", "test"]) -> Data:
            about = f"{use.id} {name}"
            return Data(label=about, size=sizes[name], dataset=spec, **sizes, seed=use.seed, split=name)

        own = {**sizes, "seed": use.seed, "convention": dataset.convention, "samples": None}
        reference = DatasetRef.model_validate({**self.plugins.reference(spec).model_dump(), **own})
        train, test = self._add(split("train")), self._add(split("test"))
        return _Data(use, reference, dataset.convention, tuple(dataset.measures), train, split("auxiliary"), test)

    def _zero_shot(self, data: _Data, model: _Model) -> str:
        return self._add(
            ZeroShot(
                label=f"{model.label} on {data.use.label}",
                size=data.use.test,
                model=model.spec,
                convention=data.convention,
                measures=data.measures,
                test=Input(data.test, "samples"),
            )
        )

    def _release(
        self, data: _Data, use: DefenseUse, surrogates: list[_Model], budget: Budget, seed: int
    ) -> tuple[str, bool]:
        """The release's stage, and whether the defense reads its surrogates."""
        defense, spec = self.plugins.plugin("defense", use.id, use.config)
        if "model" in defense.needs:
            raise UsageError(f"defense {use.id!r} declares the need 'model', which is the attacker's: use 'surrogates'")
        knows, seeded, control = "surrogates" in defense.needs, "seed" in defense.needs, use.id == CONTROL
        bound = "" if control else f" {bound_text(budget.norm, budget.image)}"
        label = use.label + bound + (f", seed {seed}" if seeded else "")
        release = Release(
            label=label,
            size=data.use.train,
            defense=spec,
            budget=None if control else bounds(use.id, budget),
            surrogates=tuple(s.spec for s in surrogates) if knows else None,
            seed=seed if seeded else None,
            train=Input(data.train, "samples"),
            auxiliary=self._auxiliary(data) if "auxiliary" in defense.needs else None,
        )
        return self._add(release), knows

    def _auxiliary(self, data: _Data) -> Input:
        return Input(self._add(data.auxiliary), "samples")

    def _stealth(self, data: _Data, release: str, reader: _Model, label: str) -> str:
        """Perplexity is read by the defender's first surrogate, by the fine-tuner's model where they have none."""
        originals, released = Input(data.train, "samples"), Input(release, "samples")
        return self._add(
            Stealth(label=label, size=data.use.train, reader=reader.spec, originals=originals, release=released)
        )

    def _meaning(self, data: _Data, model: _Model, purified: str, label: str) -> dict[str, str]:
        """By their roles, the stages that say what is left of the meaning of clean questions."""
        originals, rewritten = Input(data.train, "samples"), Input(purified, "samples")
        size = data.use.train
        asked = ZeroShot(
            label=f"{model.label} on {data.use.label} train",
            size=size,
            model=model.spec,
            convention=data.convention,
            measures=(),
            test=originals,
        )
        meaning = Meaning(
            label=label,
            size=size,
            model=model.spec,
            convention=data.convention,
            originals=originals,
            rewritten=rewritten,
            before=Input(self._add(asked), "outcome.json"),
        )
        found = {"meaning": self._add(meaning)}
        if (use := self.suite.meaning.embedding) is not None:
            fingerprint, problem = self._once(("embedding", use), lambda: self.plugins.embedding(use.id, use.revision))
            similarity = Similarity(
                label=label,
                size=size,
                embedding=use.id,
                fingerprint=fingerprint,
                problem=problem,
                originals=originals,
                rewritten=rewritten,
            )
            found["similarity"] = self._add(similarity)
        return found

    def _chain(self, data: _Data, use: _Attack, release: str, model: _Model, share: float, seed: int) -> _Chain:
        samples, training, stages = release, list[TrainingPart](), list[str]()
        for attack, spec in use.parts:
            part = spec.id
            grants, auxiliary, originals = self._grants(attack, part, data, model, share, seed)
            fitted = None
            if attack.fits:
                size = data.use.train if grants.granted is None else grants.granted
                fit = Fit(label=part, size=size, attack=spec, grants=grants, auxiliary=auxiliary)
                fitted = Input(self._add(fit))
            if attack.purifies:
                purify = Purify(
                    label=part,
                    size=data.use.train,
                    attack=spec,
                    grants=grants,
                    samples=Input(samples, "samples"),
                    auxiliary=auxiliary,
                    fitted=fitted,
                    originals=originals,
                    notes=attack.trains,
                )
                samples = self._add(purify)
                stages += [samples, *([fitted.stage] if fitted else [])]
            if attack.trains:
                notes = Input(samples, NOTES) if attack.purifies else None
                training.append(TrainingPart(spec, grants, auxiliary, fitted, notes))
        if len(training) > 1:
            names = " and ".join(repr(t.attack.id) for t in training)
            raise UsageError(
                f"attack {use.reference.id!r}: {names} both replace the training loss; a chain can hold one such part"
            )
        return _Chain(samples, tuple(stages), tuple(training))

    def _grants(
        self, attack: Card, name: str, data: _Data, model: _Model, share: float, seed: int
    ) -> tuple[Grants, Input | None, Input | None]:
        """What an attack is handed beside the samples, with clean ones of its own, and originals that leaked: nothing
        that it does not need."""
        if "surrogates" in attack.needs:
            raise UsageError(f"attack {name!r} declares the need 'surrogates', which are the defender's: use 'model'")
        if {"auxiliary", "originals"} <= attack.needs:
            raise UsageError(
                f"attack {name!r} declares the needs 'auxiliary' and 'originals', and a suite grants one share of "
                "clean data: leave one out"
            )
        granted, auxiliary, originals = None, None, None
        count = round(share * data.use.train)
        if "originals" in attack.needs and count:
            granted, originals = min(count, data.use.train), Input(data.train, "samples")
        if "auxiliary" in attack.needs:
            if count > data.use.auxiliary:
                raise UsageError(
                    f"attack {name!r} is granted {count} clean samples of the attacker's own (auxiliary: {share:g} of "
                    f"{data.use.train}) and dataset {data.use.id!r} has {data.use.auxiliary}: set `auxiliary` of the "
                    "dataset, or a smaller share"
                )
            if count:  # else the attack hears so when it asks, and only its own cells fail
                granted, auxiliary = count, self._auxiliary(data)
        own_seed = seed if "seed" in attack.needs else None
        grants = Grants(own_seed, model.spec if "model" in attack.needs else None, granted)
        return grants, auxiliary, originals

    def _surrogates(self, defense: DefenseUse, target: _Model) -> list[_Model]:
        uses = defense.surrogates or self.suite.surrogates
        return [target if use.id == TARGET else self._model(use) for use in uses]
