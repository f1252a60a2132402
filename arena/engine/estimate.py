"""How long a stage will take, from what like stages took before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from arena.store.manifest import Manifest

SECONDS_PER_SAMPLE = {
    "data": 0.002,
    "zero-shot": 0.005,
    "release": 0.1,
    "stealth": 0.02,
    "fit": 0.1,
    "purified": 0.003,
    "fine-tuned": 0.04,
    "scored": 0.04,
}
"""Used until a like stage has been measured; orders of magnitude of the shipped tiny models on one core."""

_PLUGINS = ("dataset", "defense", "attack", "recipe", "model")


class Estimator:
    """Seconds per sample by kind and plugins: same settings first, then same plugins, then a default."""

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

    def seconds(self, document: Mapping[str, Any]) -> float:
        """Estimate for a stage of that document."""
        default = SECONDS_PER_SAMPLE[document["kind"]]
        rate = self._like.get(_signature(document, None), default)
        return float(self._exact.get(_signature(document, "config"), rate) * document["size"])


def _signature(document: Mapping[str, Any], settings: str | None) -> str:
    plugins = {
        name: [plugin.get("id"), plugin.get(settings) if settings else None]
        for name in _PLUGINS
        if isinstance(plugin := document.get(name), Mapping)
    }
    return json.dumps([document.get("kind"), plugins], sort_keys=True)
