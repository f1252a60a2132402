"""MMGuard (arXiv 2605.14291) and its ablations as entries of the arena; the method is the package `mmguard`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from arena.budget import Budget
from arena.data.sample import Sample
from arena.plugins.base import DefenderWorld, Defense, Draft, Effort, PluginConfig
from defenses.purifying import Purifying
from mmguard.objective import Binds
from mmguard.settings import ImageStep, Pictures, Rounds, TextStep, image_steps


class MMGuard(Purifying, Defense):
    """Algorithm 1 with the settings that a variant fixes and those that its `Config` exposes."""

    needs = frozenset({"seed", "surrogates"})
    fixed: ClassVar[dict[str, Any]]

    def effort(self, samples: int, budget: Budget) -> Effort:
        """All rounds: passes of training, steps on pictures, and two forward passes of clean and protected samples; a
        gradient and the candidates for each word that is rewritten."""
        s = {**self.config.model_dump(), **self.fixed}
        words = budget.text if s.get("trigger_tokens") is None else s["trigger_tokens"]
        slots = s["rounds"] * min(words, s.get("slots") or words)
        steps = image_steps(s["pgd_steps"], self.config if isinstance(self.config, Pictures) else Pictures())
        gradients = s["rounds"] * (s["inner_steps"] + steps) + slots
        return Effort(forwards=2 * s["rounds"], gradients=gradients, texts=slots * s.get("candidates", 0))

    def protect(self, samples: Sequence[Sample], world: DefenderWorld) -> Iterable[Draft]:
        from mmguard.protect import Settings, protect, summary  # slow to import, and not needed to read a suite

        settings = Settings.model_validate({**self.config.model_dump(), **self.fixed})
        surrogates = world.surrogates()
        protection = protect(samples, surrogates, world.budget, settings, world.seed, world.workspace, world.progress)
        world.diagnostics |= summary(protection)
        return protection.drafts

    def distinguished(self, samples: Sequence[Sample], released: Sequence[Sample], world: DefenderWorld) -> str | None:
        """Only pictures and triggers change, each where the variant has it, and both lower what it minimises."""
        from mmguard.claims import missing
        from mmguard.protect import Settings

        settings = Settings.model_validate({**self.config.model_dump(), **self.fixed})
        return missing(samples, released, world.surrogates(), world.budget, settings, world.seed)


class _Full(PluginConfig, Binds, Rounds, ImageStep, TextStep):
    pass


class MMGuardBPH(MMGuard):
    """Binding path hijacking: the trigger attends to the perturbation, the answer to both (eq. 27).

    Budget: L∞ on pictures, words in questions.
    """

    Config = _Full
    fixed: ClassVar[dict[str, Any]] = {"objective": "bph"}


class MMGuardCRS(MMGuard):
    """Clean relation suppression: the answer attends elsewhere than on clean data (eq. 29).

    Budget: L∞ on pictures, words in questions.
    """

    Config = _Full
    fixed: ClassVar[dict[str, Any]] = {"objective": "crs"}


class MMGuardBPHMax(MMGuard):
    """BPH with the training loss raised instead of lowered (eq. 32).

    Budget: L∞ on pictures, words in questions.
    """

    Config = _Full
    fixed: ClassVar[dict[str, Any]] = {"objective": "bph-max"}


class MMGuardCRSMax(MMGuard):
    """CRS with the training loss raised instead of lowered (eq. 32).

    Budget: L∞ on pictures, words in questions.
    """

    Config = _Full
    fixed: ClassVar[dict[str, Any]] = {"objective": "crs-max"}


class MMGuardMultimodal(MMGuard):
    """Ablation: perturbation and trigger without a binding loss.

    Budget: L∞ on pictures, words in questions.
    """

    class Config(PluginConfig, Rounds, ImageStep, TextStep):
        pass

    fixed: ClassVar[dict[str, Any]] = {"objective": "none"}


class MMGuardImage(MMGuard):
    """Ablation: the perturbation alone, without trigger and binding.

    Budget: L∞ on pictures.
    """

    class Config(PluginConfig, Rounds, ImageStep):
        pass

    fixed: ClassVar[dict[str, Any]] = {"objective": "none", "trigger_tokens": 0}


class MMGuardText(MMGuard):
    """Ablation: the trigger alone, without perturbation and binding.

    Budget: words in questions.
    """

    class Config(PluginConfig, Rounds, TextStep):
        pass

    fixed: ClassVar[dict[str, Any]] = {"objective": "none", "pgd_steps": 0}
