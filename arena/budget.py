"""Image and text budgets: what a protection may change, measured on the released bytes; refused, never clipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import floor
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from rapidfuzz.distance import Levenshtein

from arena import leak
from arena.data.colours import colours, scaling
from arena.data.sample import Sample
from arena.errors import BudgetError, UsageError
from arena.text import bound_text

__all__ = ["MODES", "Budget", "amount", "check", "colours", "mode_problem", "words"]

MODES = ("L", "LA", "RGB", "RGBA")
"""The PIL modes that a release keeps byte for byte."""


class Budget(BaseModel):
    """How far a released sample may be from its original. Pixels are released in 8 bits, so that of an L-infinity bound
    only whole levels count: 7.65 is 7, for the defense, for what is checked, and for what is recorded. Pixels are
    counted whole too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: Literal["linf", "l2", "l0", "unbounded"] = Field(
        default="linf",
        description="largest change, root mean square change, number of pixels that change, or no bound on the image",
    )
    image: float = Field(
        default=8,
        ge=0,
        le=255,
        allow_inf_nan=False,
        description="bound on the image, in 1/255, or a number of pixels (l0); of linf and l0 the fraction is cut off",
    )
    text: int = Field(
        default=5, ge=0, description="bound on words inserted, changed or deleted, and on growth in tokens"
    )
    forbid_answer_words: bool = Field(
        default=True,
        description="whether an inserted word may not be one of the sample's answer or aliases, or the letter of an "
        "option; off as in the papers, whose triggers may spell the answer",
    )

    @field_validator("image")
    @classmethod
    def _whole_levels(cls, image: float, info: ValidationInfo) -> float:
        return float(floor(image)) if info.data.get("norm") in ("linf", "l0") else image

    @property
    def epsilon(self) -> float:
        """The bound on the image for pixel values in [0, 1]. Raises `UsageError` where there is none: of pixels that
        may change, it is not said by how much."""
        if self.norm == "l0":
            raise UsageError(
                f"this protection changes every pixel a little, and the budget is {bound_text(self.norm, self.image)}, "
                "changed by as much as one likes: use another norm (linf, l2, unbounded)"
            )
        return self.image / 255

    def forbidden(self, sample: Sample) -> frozenset[str]:
        """The words that may not be inserted into a sample's question, folded as `arena.leak.words` folds; none where
        answers may be."""
        return leak.forbidden(sample) if self.forbid_answer_words else frozenset()

    def forbidden_word(self, original: Sample, question: str) -> str | None:
        """What is forbidden of the words inserted into `question`, also where several written together make the answer;
        None where nothing is."""
        return leak.forbidden_word(original, question) if self.forbid_answer_words else None


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, so that a word put before a question mark is one word more; a longer
    run of letters than words have is a word for every 32 of them."""
    return re.findall(r"[\w'\u2019]{1,32}|[^\w\s]", text)


def mode_problem(image: Image.Image) -> str | None:
    """Why an image cannot be released as it is, with the remedy; None if it can."""
    if image.mode in MODES:
        return None
    kind = "a palette image (mode 'P')" if image.mode == "P" else f"of mode {image.mode!r}"
    wide = image.mode in ("I", "F") or image.mode.startswith("I;")
    remedy = scaling(image) if wide else "convert it first, e.g. image.convert('RGB')"
    return f"the image is {kind}, whose pixels are not 8-bit colours: {remedy}"


def amount(before: Image.Image, after: Image.Image, norm: str) -> float:
    """How much of a budget of this norm a changed picture uses, alpha aside: the largest change or the root mean square
    change in 1/255, or the number of pixels of which any colour changed; the largest change where there is no bound."""
    delta = colours(after).astype(np.int16) - colours(before)
    if norm == "l0":
        return float(np.count_nonzero(delta.any(2)))
    if norm == "l2":
        return float(np.sqrt(np.mean(np.square(delta, dtype=np.float64))))
    return float(np.abs(delta).max(initial=0))


def check(
    original: Sample,
    released: Sample,
    budget: Budget,
    count_tokens: Callable[[str], int] | None,
    index: int,
) -> None:
    """Compare a released sample, 8-bit pixels and final text, with its original.

    `count_tokens` is that of the first surrogate's tokenizer (None where there is no surrogate: words alone are
    counted), `index` the sample's place in the data. Raises `BudgetError` naming the sample and the amount.
    """

    def refuse(problem: str) -> BudgetError:
        return BudgetError(f"budget: sample {index} ({original.id!r}): {problem}")

    for field in ("id", "answer", "aliases", "choices"):
        if (was := getattr(original, field)) != (now := getattr(released, field)):
            raise refuse(f"{field} changed from {was!r} to {now!r}: a protection may change only image and question")
    if problem := _image_problem(original.image, released.image, budget):
        raise refuse(problem)
    if problem := _text_problem(original.question, released.question, budget.text, count_tokens):
        raise refuse(problem)
    if word := budget.forbidden_word(original, released.question):
        raise refuse(
            f"the word {word!r} was inserted, which is of its answer, an alias or an option: leave out what "
            "`budget.forbidden` names, or allow it with `forbid_answer_words: false`"
        )


def _image_problem(original: Image.Image, released: Image.Image, budget: Budget) -> str | None:
    if problem := mode_problem(original):
        return problem
    if released.mode != original.mode:
        return f"mode changed from {original.mode!r} to {released.mode!r}: return the picture in the mode it came in"
    if released.size != original.size:
        sizes = ["x".join(map(str, image.size)) for image in (original, released)]
        return f"size changed from {sizes[0]} to {sizes[1]} pixels: return the picture in the size it came in"
    if original.mode.endswith("A") and original.getchannel("A").tobytes() != released.getchannel("A").tobytes():
        return "the alpha channel changed: a protection may change colours only"
    if budget.norm == "unbounded":
        return None
    used = amount(original, released, budget.norm)
    if used <= budget.image:
        return None
    if budget.norm == "l0":
        return f"{used:.0f} pixels changed > {budget.image:.0f} after rounding to 8 bits"
    name = "|delta|" if budget.norm == "linf" else "root mean square of delta"
    # Enough digits that the amount never prints as the bound itself.
    digits = next(d for d in range(4, 18) if f"{used:.{d}g}" != f"{budget.image:.{d}g}")
    return f"{name} = {used:.{digits}g}/255 > {budget.image:.{digits}g}/255 after rounding to 8 bits"


def _text_problem(original: str, released: str, bound: int, count_tokens: Callable[[str], int] | None) -> str | None:
    # Line breaks, tabs, invisible and unpaired characters: as many, and in the order, as the owner wrote them.
    was, now = ([c for c in text if not c.isprintable()] for text in (original, released))
    if was != now:
        extra = next((c for c in now if now.count(c) != was.count(c)), "")
        which = f" ({extra!r})" if extra else ""
        return f"the question's line breaks or unprintable characters changed{which}: insert printable words only"
    distance = int(Levenshtein.distance(words(original), words(released)))
    if distance > bound:
        return f"{distance} words inserted or changed > {bound}"
    if (spaces := released.count(" ") - original.count(" ")) > distance:
        return f"{spaces} spaces added for {distance} inserted words: put one space beside an inserted word"
    if count_tokens is not None and (growth := count_tokens(released) - count_tokens(original)) > bound:
        return f"the question grew by {growth} tokens > {bound} under the first surrogate's tokenizer"
    return None
