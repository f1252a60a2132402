"""How long a stage will take, from what like stages took before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from arena.engine.stages import Stage
from arena.plugins.spec import PluginSpec
from arena.store.manifest import Manifest

_PLUGINS = ("dataset", "defense", "attack", "recipe", "model")


class Estimator:
    """Seconds per sample by kind and plugins: same settings first, then same plugins, then the kind's default."""

    def __init__(self, measured: Iterable[Manifest]) -> None:
        exact, like = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for manifest in measured:
            size = manifest.document.get("size")
            if isinstance(size, int) and size > 0:
                rate = manifest.seconds / size
                exact[_signature(manifest.document, "config")].append(rate)
                like[_signature(manifest.document, None)].append(rate)
        self._exact = {k: median(v) for k, v in exact.items()}
        self._like = {k: median(v) for k, v in like.items()}

    def seconds(self, stage: Stage) -> float:
        """Estimate for a stage."""
        if not self._like:
            return float(stage.seconds_per_sample * stage.size)
        own = {name: getattr(stage, name, None) for name in _PLUGINS}
        document = {"kind": stage.kind, **{n: spec.made_by for n, spec in own.items() if isinstance(spec, PluginSpec)}}
        rate = self._like.get(_signature(document, None), stage.seconds_per_sample)
        return float(self._exact.get(_signature(document, "config"), rate) * stage.size)


def _signature(document: Mapping[str, Any], settings: str | None) -> str:
    plugins = {
        name: [plugin.get("id"), plugin.get(settings) if settings else None]
        for name in _PLUGINS
        if isinstance(plugin := document.get(name), Mapping)
    }
    return json.dumps([document.get("kind"), plugins], sort_keys=True)
