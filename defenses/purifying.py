"""Methods whose perturbations may be crafted through purifiers that have weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arena.plugins.base import Plugin
from mmguard.settings import Pictures


class Purifying(Plugin):
    """A method whose settings are, or may be, `mmguard.settings.Pictures`; other settings name no purifier."""

    def fingerprint(self) -> str | None:
        """What identifies the weights of the purifiers that it is crafted through."""
        from attacks.checkpoints import fingerprint

        return " ".join(map(fingerprint, self._checkpoints().values())) or None

    def pinned(self) -> Mapping[str, Any]:
        from attacks.checkpoints import pinned

        chosen = self.config.model_dump()
        return {name: pinned(place) for name, place in self._checkpoints().items() if chosen[name] is not None}

    def _checkpoints(self) -> Mapping[str, str]:
        """By setting, the hub ids and folders of those purifiers."""
        if not isinstance(self.config, Pictures):
            return {}
        found = {}
        if "diffpure" in self.config.purifiers:
            from attacks.image.denoiser import SHIPPED

            found["diffusion_model"] = self.config.diffusion_model or str(SHIPPED)
        if "paraphrase" in self.config.purifiers:
            from attacks.text.paraphrase import SHIPPED as PARAPHRASER

            found["paraphrase_model"] = self.config.paraphrase_model or str(PARAPHRASER)
        return found
