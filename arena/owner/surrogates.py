"""The surrogate models of `arena protect`: loaded when asked for, and found fit to craft against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arena.engine.describe import Model
from arena.errors import ArenaError, describe_error
from arena.plugins.spec import PluginSpec, load_model

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM


class Surrogates:
    """The surrogates, loaded when asked for."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._specs = tuple(m.spec for m in models)
        self._tokenizer: Any = None

    def __bool__(self) -> bool:
        return bool(self._specs)

    def load(self) -> tuple[LVLM, ...]:
        """All of them, freshly. Raises `ArenaError` for one that cannot be loaded, or whose weights are no numbers."""
        models = tuple(map(_loaded, self._specs))
        self._tokenizer = models[0].tokenizer
        return models

    def first(self) -> LVLM:
        """The first one, freshly; raises as `load`."""
        lvlm = _loaded(self._specs[0])
        self._tokenizer = lvlm.tokenizer
        return lvlm

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under the first surrogate's tokenizer."""
        if self._tokenizer is None:
            self.first()
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _loaded(spec: PluginSpec) -> LVLM:
    checkpoint = {**spec.config, **spec.runtime}.get("checkpoint")
    name = f"surrogate {spec.id!r}" + (f" ({checkpoint})" if checkpoint else "")
    try:
        lvlm = load_model(spec)
    except ArenaError:
        raise
    except (Exception, SystemExit) as error:  # plugins raise anything
        raise ArenaError(f"{name} cannot be loaded: {describe_error(error)}. --debug shows where") from error
    if bad := _not_numbers(lvlm):
        raise ArenaError(
            f"{name}: NaN or infinite weights in {len(bad)} of its parameters, the first is {bad[0]}: nothing can be "
            "crafted against it; restore its checkpoint, or name another"
        )
    return lvlm


def _not_numbers(lvlm: LVLM) -> list[str]:
    """Names of the parameters of a model that have NaN or infinite values: its gradients would be that everywhere,
    which changes nothing and says nothing."""
    import torch

    module = getattr(lvlm, "model", None)
    if not isinstance(module, torch.nn.Module):
        return []
    weights = ((name, weight) for name, weight in module.named_parameters() if weight.is_floating_point())
    return [name for name, weight in weights if not torch.isfinite(weight).all()]
