"""Why something would be computed, for `arena plan --why`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from arena.engine.graph import Plan
from arena.engine.stages import Stage
from arena.store.manifest import Manifest


def why_stages(plan: Plan, stages: Iterable[Stage]) -> dict[str, str]:
    """For each of some stages, by name, what makes it run, against what the store knows of the same question."""
    asked = defaultdict[str, list[Manifest]](list)
    for manifest in plan.store.manifests():
        asked[str(manifest.document.get("name"))].append(manifest)
    artifacts = plan.artifacts()
    found = {}
    for stage in stages:
        earlier = asked[stage.name]
        waits = [plan.stages[link.stage] for link in stage.inputs.values() if link.stage not in artifacts.keys]
        if not earlier:
            found[stage.name] = "the store has no answer to it"
            continue
        latest = max(earlier, key=lambda m: m.created)
        changed = list(_changes(latest.document, stage.made_by))
        if changed:
            found[stage.name] = "; ".join(changed)
        elif waits:
            found[stage.name] = "it waits for " + ", ".join(f"{s.kind} {s.label}" for s in waits)
        else:
            found[stage.name] = "what it reads has other contents than before"
    return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[str]:
    """What differs between what an artifact was made by and what would make it now, a phrase each."""
    for name in now:
        old, new = before.get(name), now[name]
        if old == new:
            continue
        if name == "engine":
            yield "the engine's source has changed"
        elif name == "revision":
            yield "this kind of stage writes another form now"
        elif name == "packages":
            yield "other versions: " + _versions(old, new)
        else:
            yield from _plugin_changes(name, old, new)


def _plugin_changes(name: str, old: Any, new: Any) -> Iterable[str]:
    if isinstance(new, list) and isinstance(old, list) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from _plugin_changes(name, one, other) if one != other else ()
    elif isinstance(new, Mapping) and isinstance(old, Mapping) and "source" in new:
        if old.get("source") != new["source"]:
            yield f"the source of {name} {new['id']} has changed"
        if old.get("packages") != new["packages"]:
            yield f"other versions for {name} {new['id']}: " + _versions(old.get("packages"), new["packages"])
    elif isinstance(new, Mapping) and isinstance(old, Mapping):
        for key in new:
            yield from _plugin_changes(key, old.get(key), new[key]) if old.get(key) != new[key] else ()
    else:
        yield f"{name} is another"


def _versions(old: Any, new: Any) -> str:
    before = old if isinstance(old, Mapping) else {}
    return ", ".join(f"{k} {v} instead of {before.get(k, 'none')}" for k, v in new.items() if before.get(k) != v)
