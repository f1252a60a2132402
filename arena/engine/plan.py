"""A suite as a graph of content-keyed stages. Pure: computes nothing, loads no torch.

The key of a stage is the digest of its document: what kind it is, the plugins with their versions, configs and source
digests, the models' fingerprints, the seed where it is used, and the keys of the stages it reads. Whoever asks for the
same document gets the same stage, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from arena.budget import Budget
from arena.engine.graph import Cell, Plan, Stage, StageKind, make_stage
from arena.errors import UsageError
from arena.plugins.base import Attack, Dataset
from arena.plugins.describe import Document, Model, Plugins, knowledge
from arena.plugins.registry import Registry
from arena.store.local import Store
from arena.store.manifest import content_key
from arena.suites.schema import TARGET, AttackUse, DatasetUse, DefenseUse, PluginUse, Suite, digest


def plan(suite: Suite, registry: Registry, store: Store) -> Plan:
    """The plan of a validated suite. Raises `UsageError` where the suite asks for what its plugins cannot do."""
    builder = _Builder(suite, registry)
    cells = tuple(builder.cells())
    return Plan(suite, builder.digest, cells, builder.stages, store)


@dataclass(frozen=True)
class _Data:
    use: DatasetUse
    reference: Document
    scoring: Document
    train: str
    auxiliary: Stage
    test: str


@dataclass(frozen=True)
class _Chain:
    """What an attack makes of a release, and what it does to training."""

    purified: str
    training: list[Document]
    inputs: dict[str, str]


class _Builder:
    def __init__(self, suite: Suite, registry: Registry) -> None:
        self.suite = suite
        self.plugins = Plugins(registry)
        self.digest = digest(suite)
        self.stages: dict[str, Stage] = {}

    def cells(self) -> Iterable[Cell]:
        suite = self.suite
        models = {use.label: self.plugins.model(use) for use in suite.models}
        datasets = {use.label: self._data(use) for use in suite.datasets}
        for dataset, model, recipe, defense, budget, attack in suite.combinations():
            for seed in suite.seeds:
                data = datasets[dataset.label]
                yield self._cell(data, models[model.label], model.label, recipe, defense, budget, attack, seed)

    def _cell(
        self,
        data: _Data,
        model: Model,
        name: str,
        recipe: PluginUse,
        defense: DefenseUse,
        budget: Budget,
        attack: AttackUse,
        seed: int,
    ) -> Cell:
        surrogates = self._surrogates(defense, model)
        share = self.suite.share(attack)
        release, knows = self._release(data, defense, surrogates, budget, seed, model)
        chain = self._chain(data, attack, release, model, share, seed)
        tuned = self._add(
            "fine-tuned",
            f"{recipe.label} on {defense.label} / {attack.label}, seed {seed}",
            {
                "model": model.document,
                "recipe": self.plugins.plugin("recipe", recipe.id, recipe.config)[1],
                "training": chain.training,
                "seed": seed,
                "size": data.use.train,
            },
            {"samples": chain.purified, **chain.inputs},
        )
        stages = {
            "train": data.train,
            "test": data.test,
            "zero-shot": self._zero_shot(data, model, name),
            "release": release,
            "stealth": self._stealth(data, release, surrogates[0], defense.label),
            "purified": chain.purified,
            "fine-tuned": tuned,
            "scored": self._add(
                "scored",
                f"{recipe.label} on {defense.label} / {attack.label}, seed {seed}",
                {
                    "model": model.document,
                    "recipe": self.plugins.plugin("recipe", recipe.id, recipe.config)[1],
                    **data.scoring,
                    "seed": seed,
                    "size": data.use.test,
                },
                {"adapter": tuned, "test": data.test},
            ),
        }
        facts: Document = {
            "suite": {"id": self.suite.id, "digest": self.digest},
            "dataset": data.reference,
            "model": model.reference,
            "defense": {
                **self.plugins.reference("defense", defense),
                "label": defense.label,
                "surrogates": [s.id for s in surrogates] if knows else [],
            },
            "attack": {**self.plugins.attack_reference(attack), "label": attack.label},
            "recipe": {**self.plugins.reference("recipe", recipe), "label": recipe.label},
            "knowledge": knowledge(model, surrogates) if knows else "none",
            "budget": budget.model_dump(mode="json"),
            "auxiliary": share,
            "seed": seed,
        }
        label = " · ".join(
            [
                data.use.label,
                name,
                recipe.label,
                f"{defense.label} ({budget.image:g}/255)",
                attack.label,
                f"seed {seed}",
            ]
        )
        return Cell(content_key({"facts": facts, "stages": stages}), label, facts, stages)

    # Stages

    def _add(self, kind: StageKind, label: str, document: Document, inputs: Mapping[str, str]) -> str:
        return self._keep(make_stage(kind, label, document, inputs))

    def _keep(self, stage: Stage) -> str:
        self.stages.setdefault(stage.key, stage)
        return stage.key

    def _data(self, use: DatasetUse) -> _Data:
        dataset, document = self.plugins.plugin("dataset", use.id, use.config)
        sizes = {"train": use.train, "auxiliary": use.auxiliary, "test": use.test}

        def split(name: str) -> Stage:
            whole = {"dataset": document, **sizes, "seed": use.seed, "split": name, "size": sizes[name]}
            return make_stage("data", f"{use.id} {name}", whole, {})

        convention = cast(Dataset, dataset).convention
        reference = {**self.plugins.reference("dataset", use), **sizes, "convention": convention}
        train, test = (self._keep(split(name)) for name in ("train", "test"))
        scoring: Document = {"convention": convention}
        if measures := getattr(dataset, "measures", ()):
            scoring["measures"] = list(measures)
        return _Data(use, reference, scoring, train, split("auxiliary"), test)

    def _zero_shot(self, data: _Data, model: Model, name: str) -> str:
        document = {"model": model.document, **data.scoring, "size": data.use.test}
        return self._add("zero-shot", f"{name} on {data.use.label}", document, {"test": data.test})

    def _release(
        self, data: _Data, use: DefenseUse, surrogates: list[Model], budget: Budget, seed: int, model: Model
    ) -> tuple[str, bool]:
        """The release's key, and whether the defense reads its surrogates."""
        defense, plugin = self.plugins.plugin("defense", use.id, use.config)
        document: Document = {"defense": plugin, "size": data.use.train}
        inputs = {"train": data.train}
        label = use.label
        if use.id != "none":
            document["budget"] = budget.model_dump(mode="json")
            label += f" {budget.image:g}/255"
        knows = "surrogates" in defense.needs
        if knows:
            document["surrogates"] = [s.document for s in surrogates]
        if "seed" in defense.needs:
            document["seed"] = seed
            label += f", seed {seed}"
        if "auxiliary" in defense.needs:
            inputs["auxiliary"] = self._keep(data.auxiliary)
        if "model" in defense.needs:
            raise UsageError(f"defense {use.id!r} declares the need 'model', which is the attacker's: use 'surrogates'")
        return self._add("release", label, document, inputs), knows

    def _stealth(self, data: _Data, release: str, reader: Model, label: str) -> str:
        document = {"reader": reader.document, "size": data.use.train}
        return self._add("stealth", label, document, {"originals": data.train, "release": release})

    def _chain(self, data: _Data, use: AttackUse, release: str, model: Model, share: float, seed: int) -> _Chain:
        samples, training, training_inputs = release, [], dict[str, str]()
        for number, (part, config) in enumerate(use.parts):
            attack, document = self.plugins.plugin("attack", part, config)
            attack = cast(Attack, attack)
            grants, inputs = self._grants(attack, part, data, model, share, seed)
            if attack.fits:
                whole = {"attack": document, **grants, "size": grants.get("granted", data.use.train)}
                inputs = {**inputs, "fitted": self._add("fit", part, whole, inputs)}
            if type(attack).purify is not Attack.purify:
                whole = {"attack": document, **grants, "size": data.use.train}
                samples = self._add("purified", part, whole, {"samples": samples, **inputs})
            if type(attack).training is not Attack.training:
                training.append({"attack": document, **grants, "place": number})
                training_inputs |= {f"{name}-{number}": key for name, key in inputs.items()}
        if len(training) > 1:
            names = " and ".join(repr(t["attack"]["id"]) for t in training)
            raise UsageError(
                f"attack {use.id!r}: {names} both replace the training loss; a chain can hold one such part"
            )
        return _Chain(samples, training, training_inputs)

    def _grants(
        self, attack: Attack, name: str, data: _Data, model: Model, share: float, seed: int
    ) -> tuple[Document, dict[str, str]]:
        """What an attack is handed beyond the samples: nothing that it does not need."""
        grants: Document = {}
        inputs: dict[str, str] = {}
        if "surrogates" in attack.needs:
            raise UsageError(f"attack {name!r} declares the need 'surrogates', which are the defender's: use 'model'")
        if "seed" in attack.needs:
            grants["seed"] = seed
        if "model" in attack.needs:
            grants["model"] = model.document
        if "auxiliary" in attack.needs:
            count = round(share * data.use.train)
            if count > data.use.auxiliary:
                raise UsageError(
                    f"attack {name!r} is granted {count} clean samples of the attacker's own (auxiliary: {share:g} of "
                    f"{data.use.train}) and dataset {data.use.id!r} has {data.use.auxiliary}: set `auxiliary` of the "
                    "dataset, or a smaller share"
                )
            if count:  # else the attack hears so when it asks, and only its own cells fail
                grants["granted"] = count
                inputs["auxiliary"] = self._keep(data.auxiliary)
        return grants, inputs

    def _surrogates(self, defense: DefenseUse, target: Model) -> list[Model]:
        uses = defense.surrogates or self.suite.surrogates
        return [target if use.id == TARGET else self.plugins.model(use) for use in uses]
