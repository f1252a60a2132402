"""How much work Algorithm 1 does, by part: what the defenses of the registry expose of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from arena.plugins.base import setting


class Rounds(BaseModel):
    """The outer loop and the surrogates' training."""

    rounds: int = setting(3, dry_run=1, ge=1, description="R, rounds of adapting and crafting")
    inner_steps: int = setting(
        1, dry_run=1, ge=0, description="Q, passes of the surrogates over the protected samples per round"
    )
    rank: int = setting(8, dry_run=2, ge=1, description="rank of the surrogates' LoRA adapters")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the adapters while they are trained")
    learning_rate: float = Field(
        2e-3, gt=0, description="of the adapters (AdamW); 1e-4 for models of billions of parameters"
    )
    batch_size: int = setting(16, dry_run=8, ge=1, description="samples at a time, for the surrogates and for crafting")
    surrogate_weights: tuple[float, ...] | None = Field(None, description="omega, one a surrogate; uniform where unset")


Purifier = Literal["jpeg", "blur", "crop-pad", "grayscale", "diffpure", "paraphrase"]
"""The attacks that `mmguard.purifiers` has in a form that perturbations can be crafted through, by their ids in the
registry."""


class Pictures(BaseModel):
    """What a perturbation is made for beside what a surrogate sees of one sample's picture."""

    views: bool = setting(
        False,
        later=True,
        description="craft also through the whole picture and parts of it, where a surrogate's processor leaves more "
        "than a twentieth out; `arena protect` does",
    )
    copies: Literal["exact", "near"] = setting(
        "exact",
        later=True,
        description="which samples share one perturbation: of equal pixels, or also near copies of one size; `arena "
        "protect` takes near",
    )
    purifiers: tuple[Purifier, ...] = setting(
        (),
        later=True,
        description="attacks that perturbations are made to survive: their loss is also taken through each of these, "
        "drawn anew for every step (expectation over transformations, arXiv 1707.07397)",
    )
    diffusion_model: str | None = setting(
        None,
        runtime=True,
        min_length=1,
        description="of the purifier diffpure: hub id, with @revision where not main, or folder; else our own",
    )
    paraphrase_model: str | None = setting(
        None,
        runtime=True,
        min_length=1,
        description="of the purifier paraphrase: hub id, with @revision where not main, or folder; else our own",
    )

    @model_validator(mode="after")
    def _purifiers_are_distinct(self) -> Self:
        if len(set(self.purifiers)) < len(self.purifiers):
            raise ValueError(f"purifiers {', '.join(self.purifiers)} name one twice: name each once")
        return self


def image_steps(steps: int, pictures: Pictures) -> int:
    """Passes with a gradient that so many image steps take of a sample, where a surrogate leaves a part of it out."""
    return steps * (1 + len(pictures.purifiers) + (2 if pictures.views else 0))


class ImageStep(Pictures):
    """The image step."""

    pgd_steps: int = setting(
        8, dry_run=1, ge=0, description="steps on every picture per round; 0 leaves pictures alone"
    )
    step: int = Field(1, ge=1, description="size alpha of an image step, in 1/255")


class TextStep(BaseModel):
    """The text step."""

    trigger_tokens: int | None = Field(
        None, ge=0, description="words of a trigger; as many as the budget allows where unset, 0 leaves questions alone"
    )
    position: Literal["prefix", "suffix", "random"] = Field(
        "suffix", description="where in the question the trigger stands; random is between its words, fixed by the seed"
    )
    candidates: int = setting(16, dry_run=2, ge=1, description="K, words per slot that are verified")
    slots: int | None = setting(
        None, dry_run=1, ge=1, description="slots rewritten per round, drawn at random; all where unset"
    )
    candidate_batch: int = Field(128, ge=1, description="candidate texts that run at a time")
    lambda_ppl: float = Field(0.0, ge=0, description="weight of the question's log-perplexity in the verified loss")
