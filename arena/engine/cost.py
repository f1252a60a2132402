"""What a suite on checkpoints of the hub will take, before anything of it has run: GPU hours and disk by a stated
model.

It is arithmetic, not measurement. A forward pass costs 2 P FLOPs a token at P parameters, a backward pass 4 P where all
weights learn and 2 P where the gradient only passes through (adapters, a projector, pixels, embeddings). A sample has
`TOKENS` tokens, whatever its picture and the model; an answer is `ANSWER` tokens, generated. Hardware does
`UTILISATION` of the dense bf16 peak of one H100. How often a stage runs a sample is read from its plugins' settings, by
their conventional names:

* defenses: `rounds`; in each `inner_steps` passes of training, or `theta_steps` minibatches of `batch_size`, then
  `pgd_steps` steps on the pictures; a text step where there are `candidates`: `slots` (or `trigger_tokens`, or the
  budget's words) times one gradient and the candidates, which run for a text's tokens only; in the first `text_rounds`
  rounds where there is such a setting; and one pass before and after. For each surrogate.
* recipes: `epochs` passes of training over 7/8 of the samples and of measuring over 1/8; `gradient_checkpointing` adds
  a forward pass; `checkpoints` says whether every epoch is kept and scored, or the best; `rank` is that of adapters.
* attacks: `steps` gradients a sample, within training at every step; nothing where they ask for no model. Auxiliary
  samples that an attack is granted are trained on, unless it is fitted to them.

Disk: a sample is `PICTURE` bytes of PNG; adapters are 32-bit and have `ADAPTER` parameters a rank at 7 billion
parameters, growing with their power of 2/3; a projector is `PROJECTOR` of the parameters, in the model's own type, as
all weights are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from arena.engine.graph import Plan, Stage, StageKind
from arena.plugins.registry import Registry
from arena.recipes.trains import TRAINS, Part

FORWARD, FROZEN, LEARNING = 2, 2, 4
"""FLOPs per parameter and token: forwards, backwards through frozen weights, backwards with all weights learning."""

TEXT, ANSWER = 128, 16
TOKENS = 1024 + TEXT
PEAK, UTILISATION = 989e12, 0.4
PICTURE = 1.5e6
ADAPTER, PROJECTOR = 2.5e6, 0.01
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

Document = Mapping[str, Any]


def assumptions() -> str:
    """The model in a paragraph, for whoever reads its numbers."""
    return (
        f"Stated, not measured: {FORWARD} FLOPs a parameter and token forwards, {LEARNING} backwards, {FROZEN} where "
        f"weights are frozen; {TOKENS} tokens a sample ({TEXT} of text), {ANSWER} an answer; passes a sample from the "
        f"plugins' settings; {UTILISATION:.0%} of an H100's {PEAK / 1e12:.0f} TFLOP/s. {PICTURE / 1e6:g} MB a picture; "
        f"adapters of {ADAPTER / 1e6:g} million parameters a rank at 7 billion; weights in the type they are loaded in."
    )


@dataclass
class Costs:
    """FLOPs and bytes by kind of stage; `downloads` are the bytes of the base models, once each, `unknown` the ids of
    models whose size nobody said, which count as nothing."""

    flops: dict[StageKind, float] = field(default_factory=lambda: defaultdict(float))
    disk: dict[StageKind, float] = field(default_factory=lambda: defaultdict(float))
    downloads: float = 0
    unknown: tuple[str, ...] = ()

    def gpu_hours(self, kind: StageKind | None = None) -> float:
        """Of one kind of stage, or of all."""
        flops = sum(self.flops.values()) if kind is None else self.flops.get(kind, 0.0)
        return flops / (PEAK * UTILISATION) / 3600


class CostModel:
    """The model of this module, for the stages of one plan."""

    def __init__(self, plan: Plan, registry: Registry) -> None:
        self._stages = plan.stages
        self._registry = registry
        self._seen: dict[str, float | None] = {}
        self._weights: dict[str, float] = {}

    def costs(self, stages: Iterable[Stage]) -> Costs:
        """What these stages of the plan take together."""
        found = Costs()
        for stage in stages:
            found.flops[stage.kind] += self.flops(stage)
            found.disk[stage.kind] += self.disk(stage)
        found.unknown = tuple(sorted(name for name, billions in self._seen.items() if billions is None))
        found.downloads = sum(self._weights.values())
        return found

    def flops(self, stage: Stage) -> float:
        """FLOPs of one stage."""
        d = stage.document
        if stage.kind == "release":
            return sum(self._crafting(d) * self._parameters(model) for model in d.get("surrogates", ()))
        model = d.get("reader" if stage.kind == "stealth" else "model")
        if model is None:
            return 0.0
        if stage.kind == "stealth":
            passes = 2 * d["size"] * FORWARD * TEXT
        elif stage.kind == "fine-tuned":
            passes = self._training(d) * TOKENS
        elif stage.kind in ("zero-shot", "scored"):
            passes = self._kept(d) * d["size"] * FORWARD * (TOKENS + ANSWER)
        else:
            passes = _number(d["attack"]["config"], "steps", 1) * d["size"] * (FORWARD + FROZEN) * TOKENS
        return float(passes * self._parameters(model))

    def disk(self, stage: Stage) -> float:
        """Bytes that one stage leaves in the store."""
        d = stage.document
        if stage.kind in ("data", "release", "purified"):
            return self._samples(stage.key) * PICTURE
        if stage.kind != "fine-tuned":
            return 0.0
        parts, config, parameters = self._trained(d), d["recipe"]["config"], self._parameters(d["model"])
        width = BYTES.get(d["model"]["config"].get("dtype", ""), 4)
        if "all" in parts:
            kept = parameters * width
        else:
            adapters = ADAPTER * config.get("rank", 0) * (parameters / 7e9) ** (2 / 3) * BYTES["float32"]
            projector = PROJECTOR * parameters * width
            kept = adapters * ("adapters" in parts) + projector * ("projector" in parts)
        return self._kept(d) * kept

    def parameters(self, model: Document) -> float | None:
        """Parameters of the model of a stage's document, None where its class does not say, or is told to load another
        checkpoint than its own."""
        source = self._registry.get("model", model["id"]).load()
        billions = getattr(source, "billions", None)
        own = source.Config.model_fields.get("checkpoint")
        if billions is None or (own is not None and model["config"].get("checkpoint") != own.default):
            return None
        return float(billions) * 1e9

    def _parameters(self, model: Document) -> float:
        found = self.parameters(model)
        self._seen[model["id"]] = found
        self._weights[model["fingerprint"]] = (found or 0.0) * BYTES["bfloat16"]
        return found or 0.0

    def _crafting(self, d: Document) -> float:
        """FLOPs per parameter of one surrogate."""
        config, size = d["defense"]["config"], d["size"]
        rounds, gradient = _number(config, "rounds", 1), FORWARD + FROZEN
        steps = (_number(config, "inner_steps") + _number(config, "pgd_steps")) * gradient
        minibatches = _number(config, "theta_steps") * _number(config, "batch_size", 1) * gradient
        words = _number(config, "trigger_tokens", d["budget"]["text"])
        slots = min(_number(config, "slots", words), words) if "candidates" in config else 0
        text = slots * (gradient + _number(config, "candidates") * FORWARD * TEXT / TOKENS)
        text_rounds = min(rounds, _number(config, "text_rounds", rounds))
        passes = size * (rounds * (steps + 2 * FORWARD) + text_rounds * text) + rounds * minibatches
        return float(passes * TOKENS)

    def _training(self, d: Document) -> float:
        """Forward-pass-equivalents of fine-tuning in FLOPs per parameter and token."""
        config, samples = d["recipe"]["config"], self._samples(d["inputs"]["samples"])
        step: float = FORWARD + (LEARNING if "all" in self._trained(d) else FROZEN)
        if config.get("gradient_checkpointing"):
            step += FORWARD
        for part in d["training"]:
            step += _number(part["attack"]["config"], "steps") * (FORWARD + FROZEN)
        return float(config["epochs"] * samples * (7 / 8 * step + 1 / 8 * FORWARD))

    def _samples(self, key: str) -> int:
        """How many samples a stage holds."""
        stage = self._stages[key]
        d, inputs = stage.document, stage.document["inputs"]
        if stage.kind != "purified":
            return int(d["size"])
        added = 0 if "fitted" in inputs else d.get("granted", 0)
        return self._samples(inputs["samples"]) + int(added)

    def _trained(self, d: Document) -> frozenset[Part]:
        name = d["recipe"]["id"]
        declared = getattr(self._registry.get("recipe", name).load(), "trains", None)
        if declared is not None:
            return frozenset(declared)
        return TRAINS.get(name, frozenset({"adapters"} if "rank" in d["recipe"]["config"] else {"all"}))

    @staticmethod
    def _kept(d: Document) -> int:
        config = d.get("recipe", {}).get("config", {})
        return int(config["epochs"]) if config.get("checkpoints") == "all" else 1


def _number(config: Document, name: str, default: float = 0) -> float:
    """A setting that counts something; `default` where there is none, or it is unset."""
    value = config.get(name)
    return default if value is None else float(value)
