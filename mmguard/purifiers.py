"""What fine-tuners do to pictures and questions, as views of them: perturbations are crafted to survive it.

The expectation over such transformations (Athalye 2018, arXiv 1707.07397) makes a protection adaptive: its loss is also
taken through the attacks that it expects, which are differentiable in the pictures. What is drawn is drawn anew for
every turn, by the turn's number and the size of a picture alone, so that all samples of a picture, and all surrogates,
see the same.

Diffusion purification has a gradient through its last steps alone; what the steps before change is taken for a
constant (Athalye 2018, arXiv 1802.00420, has a step's gradient replaced by that of one that it resembles, here the
identity). A paraphraser words the original question otherwise and leaves a trigger out, so that pictures are crafted to
protect without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arena.data.sample import Sample
from arena.lvlm.base import LVLM
from arena.lvlm.views import View, cuts, leaves_out
from mmguard.settings import Pictures, Purifier

if TYPE_CHECKING:
    from attacks.image.denoiser import Denoiser
    from attacks.text.seq2seq import Seq2Seq

QUALITIES = 10, 75
"""Between which the quality of JPEG is drawn: that of image shortcut squeezing, and libjpeg's own."""

SIGMAS = 0.5, 1.5
"""Between which the standard deviation of a blur is drawn, in pixels."""

SIDE = 0.9
"""Sides of a crop as a share of the picture's."""

T_STAR, STEPS, LAST = 100, 4, 2
"""Diffusion: the noise level, that of AVATAR, the steps back from it, and those of them that have a gradient."""

_OVERLAP, _TILES = 0.25, 16
_LUMA = 0.299, 0.587, 0.114
_BLOCK = 16
"""Pixels a side of JPEG's blocks where colours have half the resolution."""

Views = Callable[[Sequence[Tensor]], list[Tensor]]
"""Pictures ``(3, H, W)`` in [0, 1] seen otherwise, differentiably."""

Concerned = Callable[[LVLM, int, int], bool]
"""Whether something is for the pictures of a height and width, at a surrogate."""


@dataclass(frozen=True)
class Seen:
    """What perturbations are crafted for beside what a surrogate sees: other `pictures`, where these are `concerned`,
    and other `questions`, which are those of the samples that it gives."""

    pictures: Views
    concerned: Concerned
    questions: Callable[[Sequence[Sample]], list[Sample]] = list


def views(beside: Pictures, turn: int) -> Iterator[Seen]:
    """What perturbations are crafted for in a turn: all samples as each purifier leaves them, and other cuts of the
    pictures of which a surrogate leaves out a part."""
    for purifier in beside.purifiers:
        if purifier == "paraphrase":
            yield Seen(list, everywhere, partial(reworded, turn=turn, checkpoint=beside.paraphrase_model))
        else:
            yield Seen(partial(purified, purifier=purifier, turn=turn, model=beside.diffusion_model), everywhere)
    for cut in cuts(turn) if beside.views else ():
        yield Seen(partial(_one_by_one, cut), leaves_out)


def everywhere(lvlm: LVLM, height: int, width: int) -> bool:
    """All pictures are concerned."""
    return True


def reworded(samples: Sequence[Sample], turn: int, checkpoint: str | None = None) -> list[Sample]:
    """The samples with their questions as a paraphraser words them in a turn: by default the arena's own, else one by
    hub id or folder."""
    from attacks.text.seq2seq import rewrite_questions

    number = int(np.random.default_rng([turn, get_args(Purifier).index("paraphrase")]).integers(2**31))

    def wording(text: str) -> str:
        found = _wordings(checkpoint, text)
        return found[number % len(found)] if found else ""

    return list(rewrite_questions(samples, lambda texts: [wording(text) for text in texts]))


@lru_cache(maxsize=2**12)
def _wordings(checkpoint: str | None, text: str) -> list[str]:
    return _paraphraser(checkpoint).wordings(text)


@lru_cache(maxsize=1)
def _paraphraser(checkpoint: str | None) -> Seq2Seq:
    from attacks.text.paraphrase import SHIPPED
    from attacks.text.seq2seq import Decoding, Seq2Seq

    return Seq2Seq(checkpoint or str(SHIPPED), Decoding.model_validate({}))


def purified(images: Sequence[Tensor], purifier: Purifier, turn: int, model: str | None = None) -> list[Tensor]:
    """Pictures ``(3, H, W)`` in [0, 1] as a purifier of pictures leaves them in a turn: in sizes and range as before.

    `model` is diffpure's by hub id or folder, else the arena's own, see `attacks.image.denoiser.load`.
    """
    of_size: dict[torch.Size, list[int]] = {}
    for i, image in enumerate(images):
        of_size.setdefault(image.shape, []).append(i)
    found: dict[int, Tensor] = {}
    for indices in of_size.values():
        rng = np.random.default_rng([turn, get_args(Purifier).index(purifier)])
        x = torch.stack([images[i] for i in indices])
        changed = _diffpure(x, rng, model) if purifier == "diffpure" else _PURIFIERS[purifier](x, rng)
        found |= dict(zip(indices, changed, strict=True))
    return [found[i] for i in range(len(images))]


def _one_by_one(view: View, images: Sequence[Tensor]) -> list[Tensor]:
    return [view(x) for x in images]


def _jpeg(x: Tensor, rng: np.random.Generator) -> Tensor:
    """JPEG with rounding that has a gradient (Shin and Song 2017), as kornia has it."""
    from kornia.enhance import jpeg_codec_differentiable

    height, width = x.shape[-2:]
    padded = F.pad(x, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    quality = torch.tensor([float(rng.integers(QUALITIES[0], QUALITIES[1] + 1))], device=x.device)
    return jpeg_codec_differentiable(padded, quality)[..., :height, :width].clamp(0, 1)


def _blur(x: Tensor, rng: np.random.Generator) -> Tensor:
    from kornia.filters import gaussian_blur2d

    sigma = float(rng.uniform(*SIGMAS))
    rows, columns = (min(2 * ceil(3 * sigma) + 1, 2 * side - 1) for side in x.shape[-2:])
    return gaussian_blur2d(x, (rows, columns), (sigma, sigma)).clamp(0, 1)


def _crop_pad(x: Tensor, rng: np.random.Generator) -> Tensor:
    """A part at a random place, put at another one, its edge repeated around it."""
    sizes = [max(1, round(SIDE * side)) for side in x.shape[-2:]]
    room = [side - size + 1 for side, size in zip(x.shape[-2:], sizes, strict=True)]
    (top, left), (down, right) = rng.integers(room).tolist(), rng.integers(room).tolist()
    part = x[..., top : top + sizes[0], left : left + sizes[1]]
    around = (right, x.shape[-1] - right - sizes[1], down, x.shape[-2] - down - sizes[0])
    return F.pad(part, around, mode="replicate")


def _grayscale(x: Tensor, rng: np.random.Generator) -> Tensor:
    weights = torch.tensor(_LUMA, device=x.device, dtype=x.dtype)[:, None, None]
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def _diffpure(x: Tensor, rng: np.random.Generator, model: str | None) -> Tensor:
    from attacks.image.diffpure import led_back, noise_levels
    from attacks.image.tiles import Tiling, padded

    denoiser = _denoiser(model, x.device)
    height, width = x.shape[-2:]
    places, own = padded(np.arange(height * width).reshape(height, width, 1), denoiser.size)
    sides = places.shape[0], places.shape[1]
    values = 2 * x.flatten(-2)[..., torch.from_numpy(places.ravel()).to(x.device)].unflatten(-1, sides) - 1
    tiling = Tiling(sides, denoiser.size, _OVERLAP)
    path = noise_levels(min(T_STAR, denoiser.levels), STEPS)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    scheduler, (level, _) = denoiser.scheduler, path[-LAST]
    scheduler.set_timesteps(timesteps=[level for level, _ in path])
    with torch.no_grad():
        noise = torch.randn(values.shape[1:], generator=generator).to(x.device)  # one for all pictures
        start = scheduler.add_noise(values, noise.expand_as(values), torch.tensor([path[0][0]]))
        before = led_back(denoiser, tiling, start, path[:-LAST], _TILES, "ddim", generator)
    reached = before + scheduler.alphas_cumprod[level].sqrt() * (values - values.detach())
    after = led_back(denoiser, tiling, reached, path[-LAST:], _TILES, "ddim", generator)
    return ((after[..., own[0], own[1]] + 1) / 2).clamp(0, 1)


@lru_cache(maxsize=1)
def _denoiser(model: str | None, device: torch.device) -> Denoiser:
    from attacks.image.denoiser import load

    found = load(model, str(device))
    found.unet.requires_grad_(False)
    return found


_PURIFIERS: Mapping[Purifier, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "jpeg": _jpeg,
    "blur": _blur,
    "crop-pad": _crop_pad,
    "grayscale": _grayscale,
}
