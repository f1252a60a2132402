"""Records of schema 1 as records of schema 2.

Schema 1 lacks the seed that draws a dataset, the surrogates' settings and fingerprints, those of attacks, and the
protocol version. The suite that made a record says the first two, the plugins as they are installed the third. None of
that is believed: schema 1 named a cell by a key over all of it, so the key is computed again from what was filled in,
and a record whose key comes out another is refused. The protocol of schema 1 is version 1.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from arena.errors import ArenaError
from arena.plugins.base import Attack, ModelSource
from arena.plugins.identity import CONTROL, identity
from arena.plugins.registry import Kind, Registry
from arena.records.schema import Record
from arena.suites.parts import TARGET, PluginUse, RecipeUse
from arena.suites.schema import Combination, Suite

ENGINE = "schema-1"
"""The engine's digest in migrated records, since schema 1 had none."""

Json = dict[str, Any]

_SUITE_FIELDS = {
    *("id", "models", "datasets", "surrogates", "defenses", "attacks", "recipes", "budgets", "auxiliary", "seeds"),
    *("skip", "limits"),
}

_RULE = "forbid_answer_words"
"""A field of budgets that schema 1 did not have: its cells are those without the rule."""

_REMEDY = "restore the file from a copy, or remove the line and run the suite again"


def read_lines(path: Path) -> dict[str, Json]:
    """The JSON objects in a file of records, by their places, ``old.jsonl, line 7``.

    Raises `ArenaError` naming the file, and the line that is none.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ArenaError(f"{path} cannot be read ({error.strerror}): name a JSONL file of records") from error
    found: dict[str, Json] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            raise ArenaError(f"{place} is damaged: it is not JSON; {_REMEDY}") from error
        if not isinstance(document, dict):
            raise ArenaError(f"{place} is damaged: it is not a JSON object; {_REMEDY}")
        found[place] = document
    return found


def migrate(lines: Mapping[str, Json], suites: Sequence[Suite], registry: Registry) -> list[Record]:
    """The records of schema 1 in `lines`, in their order, by the suites that made them; records of schema 2 are left as
    they are. `lines` are by their places, as of `read_lines`.

    Raises `ArenaError` naming the place and the record that cannot be migrated, and what about it cannot be known.
    """
    maker = _Maker(suites, registry, list(lines.values()))
    records = []
    for place, line in lines.items():
        try:
            records.append(maker.record(line))
        except ArenaError as error:
            raise ArenaError(f"{place}: {error}") from error
    return records


def suite_digest(suite: Suite) -> str:
    """The digest that records of schema 1 have of their suite."""
    content = suite.model_dump(mode="json", include=_SUITE_FIELDS)
    content["limits"] = {"stage_minutes": content["limits"]["stage_minutes"]}  # there were no others
    for recipe in content["recipes"]:
        for name in RecipeUse.model_fields.keys() - PluginUse.model_fields.keys():
            del recipe[name]  # there was no choice among recipes
    for budgets in (content["budgets"], *(defense["budgets"] or () for defense in content["defenses"])):
        for budget in budgets:
            del budget[_RULE]
    text = json.dumps(
        content,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _key(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class _Plugin:
    """A plugin of a record, as the documents of schema 1 had it."""

    kind: Kind
    id: str
    version: str
    config: Json
    source: str
    fingerprint: str | None
    origin: Json

    @property
    def document(self) -> Json:
        own = {"id": self.id, "version": self.version, "config": self.config, "source": self.source}
        return own if self.fingerprint is None else {**own, "fingerprint": self.fingerprint}

    def reference(self, registry: Registry) -> Json:
        """What records of schema 2 say of it."""
        settings = registry.configure(self.kind, self.id, self.config)
        ran = {name: value for name, value in settings.runtime().items() if name in self.config}  # others came later
        return {
            "id": self.id,
            "version": self.version,
            "config": settings.identity(),
            "runtime": ran,
            "fingerprint": self.fingerprint,
            "source_digest": self.source,
            "origin": self.origin,
        }


@dataclass
class _Maker:
    suites: Sequence[Suite]
    registry: Registry
    lines: Sequence[Json]
    _by_digest: dict[str, Suite] = field(init=False)
    _sources: dict[tuple[str, str], set[str]] = field(init=False)
    """Source digests of attacks and models that records have, by kind and id."""

    def __post_init__(self) -> None:
        self._by_digest = {suite_digest(suite): suite for suite in self.suites}
        self._sources = defaultdict(set)
        for line in self.lines:
            for kind in ("model", "attack") if line.get("schema_version") == 1 else ():
                match line.get(kind):  # what is otherwise is damaged, which is said when it is migrated
                    case {"id": str(id), "source_digest": str(source)}:
                        self._sources[kind, id].add(source)

    def record(self, line: Json) -> Record:
        name = f"record {str(line.get('cell'))[:12]}"
        if line.get("schema_version") not in (1, 2):
            raise ArenaError(f"{name} has schema version {line.get('schema_version')!r}: this migrates version 1")
        try:
            if line["schema_version"] == 2:
                return Record.model_validate(line)
            suite = self._by_digest.get(line["suite"]["digest"])
            if suite is None:
                raise ArenaError(
                    f"{name} was made by a suite {line['suite']['id']!r} that none of the given files is, and lacks "
                    "what only that says: name the suite's file as it was with --suite"
                )
            for found in suite.combinations():
                if _names(found) == _names_of(line) and found.dataset.train == line["dataset"]["train"]:
                    for filled in self._filled(line, suite, found):
                        if filled.key() == line["cell"]:
                            return filled.record()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise ArenaError(f"{name} is damaged: {where}: {first['msg']}; {_REMEDY}") from error
        except KeyError as error:
            raise ArenaError(f"{name} is damaged: it lacks the field {error.args[0]!r}; {_REMEDY}") from error
        except (AttributeError, TypeError) as error:
            raise ArenaError(f"{name} is damaged: a field holds a value of another type; {_REMEDY}") from error
        raise ArenaError(
            f"{name} ({line['defense']['label']} / {line['attack']['label']}, seed {line.get('seed')}): what it lacks "
            f"cannot be known: no combination of suite {suite.id!r} with the plugins as they are installed gives its "
            "key; migrate it with the arena, the plugins and their weights that made it, or leave it out"
        )

    def _filled(self, line: Json, suite: Suite, found: Combination) -> Iterator[_Filled]:
        """A record's line with all that it lacks, in every way that it may be meant."""
        own = {kind: self._own(kind, line[kind]) for kind in ("dataset", "model", "defense", "recipe")}
        parts = [
            [self._named("attack", id, config, source) for source in self._attack_sources(line, id)]
            for id, config in found.attack.parts
        ]
        uses = found.defense.surrogates or suite.surrogates
        surrogates = [
            [own["model"]]
            if use.id == TARGET
            else [self._named("model", use.id, use.config, source) for source in sorted(self._sources["model", use.id])]
            for use in uses
        ]
        for attacks in product(*parts):
            for models in product(*surrogates):
                yield _Filled(line, suite, found, own, attacks, models, self.registry)

    def _attack_sources(self, line: Json, part: str) -> list[str]:
        if "+" not in line["attack"]["id"]:
            return [line["attack"]["source_digest"]]
        return sorted(self._sources["attack", part])

    def _own(self, kind: Kind, reference: Json) -> _Plugin:
        """A plugin that the record itself describes, but for a fingerprint."""
        made = self._named(kind, reference["id"], reference["config"], reference["source_digest"])
        fingerprint = reference["fingerprint"] if kind == "model" else made.fingerprint
        version, origin = reference["version"], reference["origin"]
        return _Plugin(kind, made.id, version, reference["config"], made.source, fingerprint, origin)

    def _named(self, kind: Kind, id: str, config: Mapping[str, Any], source: str) -> _Plugin:
        """A plugin that the suite names, as it is installed, of the source that the record says."""
        plugin, origin = self.registry.create(kind, id, dict(config)), self.registry.get(kind, id).origin
        settings = {**plugin.config.identity(), **plugin.config.runtime()}
        about = {"package": origin.package, "version": origin.version}
        return _Plugin(kind, id, plugin.version, settings, source, plugin.fingerprint(), about)


def _names(found: Combination) -> tuple[str, ...]:
    return found.dataset.id, found.model.id, found.recipe.label, found.defense.label, found.attack.label


def _names_of(line: Json) -> tuple[str, ...]:
    return line["dataset"]["id"], line["model"]["id"], *(line[k]["label"] for k in ("recipe", "defense", "attack"))


@dataclass(frozen=True)
class _Filled:
    """A line of schema 1 with what it lacks; `key` is what schema 1 would have called it."""

    line: Json
    suite: Suite
    found: Combination
    own: Mapping[str, _Plugin]
    attacks: Sequence[_Plugin]
    surrogates: Sequence[_Plugin]
    registry: Registry

    def record(self) -> Record:
        """The record of schema 2."""
        old, use = self.line, self.found.dataset
        models = self.surrogates if old["defense"]["surrogates"] else ()
        references = {kind: plugin.reference(self.registry) for kind, plugin in self.own.items()}
        asked: Json = {
            "protocol_version": 1,
            "dataset": {
                **references["dataset"],
                **{name: old["dataset"][name] for name in ("train", "auxiliary", "test", "convention")},
                "seed": use.seed,
                "samples": old["dataset"]["fingerprint"],
            },
            "model": {**references["model"], "family": old["model"]["family"]},
            "defense": {
                **references["defense"],
                "label": old["defense"]["label"],
                "surrogates": [{**m.reference(self.registry), "family": self._family(m)} for m in models],
            },
            "attack": {
                "label": old["attack"]["label"],
                "parts": [attack.reference(self.registry) for attack in self.attacks],
            },
            "recipe": {**references["recipe"], "label": old["recipe"]["label"]},
            **{name: old[name] for name in ("knowledge", "budget", "auxiliary", "seed")},
        }
        kept = {name: value for name, value in old.items() if name not in (*asked, "schema_version", "cell")}
        return Record.model_validate({**asked, **kept, "engine_digest": ENGINE, "cell": identity(asked)})

    def _family(self, model: _Plugin) -> str:
        return cast(type[ModelSource], self.registry.get("model", model.id).load()).family

    def key(self) -> str:
        """What schema 1 called the cell."""
        old, d, use, seed = self.line, self.own, self.found.dataset, self.line["seed"]
        budget, share = self._budget(), self.suite.share(self.found.attack)
        if (old["budget"], old["auxiliary"]) != (budget, share):
            return ""
        if seed not in self.suite.seeds or self._attack_digest() != old["attack"]["source_digest"]:
            return ""
        sizes = {"train": use.train, "auxiliary": use.auxiliary, "test": use.test}
        scoring: Json = {"convention": old["dataset"]["convention"]}
        if measures := self.registry.create("dataset", use.id, use.config).measures:
            scoring["measures"] = list(measures)

        def split(name: str) -> str:
            whole = {"dataset": d["dataset"].document, **sizes, "seed": use.seed, "split": name, "size": sizes[name]}
            return _stage("data", whole, {})

        data = {name: split(name) for name in sizes}
        model, recipe = d["model"].document, d["recipe"].document
        release = self._release(data, seed)
        purified, training, inputs = self._chain(data, release, seed)
        tuning = {"model": model, "recipe": recipe, "training": training, "seed": seed, "size": use.train}
        tuned = _stage("fine-tuned", tuning, {"samples": purified, **inputs})
        score = {"model": model, "recipe": recipe, **scoring, "seed": seed, "size": use.test}
        reading = {"reader": self.surrogates[0].document, "size": use.train}
        stages = {
            "train": data["train"],
            "test": data["test"],
            "zero-shot": _stage("zero-shot", {"model": model, **scoring, "size": use.test}, {"test": data["test"]}),
            "release": release,
            "stealth": _stage("stealth", reading, {"originals": data["train"], "release": release}),
            "purified": purified,
            "fine-tuned": tuned,
            "scored": _stage("scored", score, {"adapter": tuned, "test": data["test"]}),
        }
        facts = {
            "suite": old["suite"],
            "dataset": {name: value for name, value in old["dataset"].items() if name != "fingerprint"},
            **{name: old[name] for name in ("model", "defense", "attack", "recipe", "knowledge")},
            "budget": budget,
            "auxiliary": share,
            "seed": seed,
        }
        return _key({"facts": facts, "stages": stages})

    def _budget(self) -> Json:
        return self.found.budget.model_dump(mode="json", exclude={_RULE})

    def _attack_digest(self) -> str:
        sources = [attack.source for attack in self.attacks]
        return sources[0] if len(sources) == 1 else _key({"parts": sources})

    def _release(self, data: Mapping[str, str], seed: int) -> str:
        own = self.own["defense"]
        needs = self.registry.create("defense", own.id, own.config).needs
        document: Json = {"defense": own.document, "size": self.found.dataset.train}
        inputs = {"train": data["train"]}
        if own.id != CONTROL:
            document["budget"] = self._budget()
        if "surrogates" in needs:
            document["surrogates"] = [surrogate.document for surrogate in self.surrogates]
        if "seed" in needs:
            document["seed"] = seed
        if "auxiliary" in needs:
            inputs["auxiliary"] = data["auxiliary"]
        return _stage("release", document, inputs)

    def _chain(self, data: Mapping[str, str], release: str, seed: int) -> tuple[str, list[Json], Json]:
        samples, training, training_inputs = release, list[Json](), Json()
        for number, attack in enumerate(self.attacks):
            plugin = self.registry.create("attack", attack.id, attack.config)
            grants, inputs = self._grants(plugin, data, seed)
            size = self.found.dataset.train
            if plugin.fits:
                whole = {"attack": attack.document, **grants, "size": grants.get("granted", size)}
                inputs = {**inputs, "fitted": _stage("fit", whole, inputs)}
            if plugin.purifies:
                whole = {"attack": attack.document, **grants, "size": size}
                samples = _stage("purified", whole, {"samples": samples, **inputs})
            if plugin.trains:
                training.append({"attack": attack.document, **grants, "place": number})
                training_inputs |= {f"{name}-{number}": key for name, key in inputs.items()}
        return samples, training, training_inputs

    def _grants(self, attack: Attack, data: Mapping[str, str], seed: int) -> tuple[Json, Json]:
        grants: Json = {}
        inputs: Json = {}
        if "seed" in attack.needs:
            grants["seed"] = seed
        if "model" in attack.needs:
            grants["model"] = self.own["model"].document
        if "auxiliary" in attack.needs and (
            count := round(self.suite.share(self.found.attack) * self.found.dataset.train)
        ):
            grants["granted"] = count
            inputs["auxiliary"] = data["auxiliary"]
        return grants, inputs


def _stage(kind: str, document: Json, inputs: Mapping[str, str]) -> str:
    return _key({"kind": kind, "stage_version": 1, **document, "inputs": dict(inputs)})
