"""A small convolutional variational autoencoder whose rate is limited, and an auxiliary decoder of what it leaves out.

Encoder and decoder are corrections, learned, of the cosine transform of 4 x 4 blocks: an autoencoder that starts as
linear transform coding is soon a good one on few pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn import functional as F

from arena.lvlm.perturbation import as_rgb, planes

BLOCK = 4
"""Pixels along a side of a place of the latent."""
CHANNELS = 3 * BLOCK * BLOCK
"""Coefficients of a block, and channels of the latent."""
WIDTH, EMBEDDING = 32, 16
"""Channels of the hidden layers and of the class embeddings."""
START = 4 / 255
"""Standard deviation, in pixel values, of the error that the untrained autoencoder makes."""
CROP, PLACES = 64, 64
"""Largest sides of what is trained on, in pixels, and of the class embeddings, in blocks, beyond which they repeat."""
BATCH, RATE = 16, 4e-3
"""Pictures and peak learning rate of a training step."""
PRESSURE = 0.03
"""Squared error of a pixel, summed over its colours in [0, 1], that counts as much as a nat above the limit."""


def _network(channels: int, outputs: int) -> nn.Sequential:
    """Three convolutions; the last one starts at zero."""
    last = nn.Conv2d(WIDTH, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    middle = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.SiLU(), middle, nn.SiLU(), last)


def _cosines() -> Tensor:
    """The transform of the three colours of a block, as the weight of a convolution."""
    line = torch.from_numpy(dct(np.eye(BLOCK), norm="ortho", axis=0)).float()
    block = torch.kron(line, line)
    blocks: Tensor = torch.block_diag(block, block, block)
    return blocks[..., None, None]


def coefficients(x: Tensor, basis: Tensor) -> Tensor:
    """Cosine coefficients ``(B, 48, H / 4, W / 4)`` of the blocks of pictures."""
    return F.conv2d(F.pixel_unshuffle(x, BLOCK), basis)


class RateLimited(nn.Module):
    """q(z|x), a decoder of z, and an auxiliary decoder of z and of an embedding of the class, a vector per block.

    `mean` and `deviation` are those of each coefficient over the pictures that it will be fitted on, ``(48,)``;
    embeddings have `rows` by `columns` blocks. Pictures ``(B, 3, H, W)`` are in [0, 1], sides multiples of 4.
    """

    basis: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, classes: int, rows: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("basis", _cosines())
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("deviation", deviation.clamp(min=START / 4)[:, None, None])
        self.gain = nn.Parameter(torch.ones(CHANNELS, 1, 1))
        self.return_gain = nn.Parameter(torch.ones(CHANNELS, 1, 1))
        self.log_variance = nn.Parameter(2 * (START / self.deviation).clamp(max=1).log())
        self.encoder = _network(CHANNELS, 2 * CHANNELS)
        self.decoder = _network(CHANNELS, CHANNELS)
        self.auxiliary = _network(CHANNELS + EMBEDDING, CHANNELS)
        self.embedding = nn.Parameter(torch.randn(classes, EMBEDDING, rows, columns) / 4)

    def pixels(self, c: Tensor) -> Tensor:
        """The pictures of coefficients."""
        return F.pixel_shuffle(F.conv_transpose2d(c, self.basis), BLOCK)

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each ``(B, 48, H / 4, W / 4)``."""
        s = (coefficients(x, self.basis) - self.mean) / self.deviation
        mean, log_variance = self.encoder(s).chunk(2, 1)
        return self.gain * s + mean, (self.log_variance + log_variance).clamp(-14, 2)

    def reconstruction(self, z: Tensor) -> Tensor:
        """Pictures of latents."""
        return self.pixels((self.return_gain * z + self.decoder(z)) * self.deviation + self.mean)

    def residual(self, z: Tensor, classes: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """What latents and classes tell of picture minus reconstruction; `top` and `left` are in blocks."""
        rows = torch.arange(top, top + z.shape[2], device=z.device) % self.embedding.shape[2]
        columns = torch.arange(left, left + z.shape[3], device=z.device) % self.embedding.shape[3]
        where = self.embedding[classes][:, :, rows][:, :, :, columns]
        return START * self.pixels(self.auxiliary(torch.cat([z, where], 1)))


def padded(image: Image.Image) -> Tensor:
    """A picture of mode L, LA, RGB or RGBA as ``(1, 3, H, W)`` in [0, 1], its last row and column repeated up to
    multiples of 4."""
    x = as_rgb(planes(image))[None]
    return F.pad(x, (0, -x.shape[3] % BLOCK, 0, -x.shape[2] % BLOCK), mode="replicate")


def fit(
    images: Sequence[Image.Image], classes: np.ndarray, rate: float, steps: int, seed: int, device: str
) -> RateLimited:
    """An autoencoder of the pictures at no more than about `rate` nats a pixel.

    Descends on |x - x'|^2 + |(x - x') - r|^2 + PRESSURE max(0, KL(q(z|x), N(0, 1)) - rate), all per pixel, with x' the
    reconstruction of a draw z of q and r the auxiliary decoder's residual, for which x' and z are given. `classes` are
    numbers from 0, int ``(N,)``.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault((min(image.height, CROP), min(image.width, CROP)), []).append(i)
    kinds = list(groups.values())
    shares = np.array([len(kind) for kind in kinds]) / len(images)

    def batch() -> tuple[Tensor, Tensor, int, int]:
        """Crops of one size from one place of their pictures, their classes, and the place in blocks."""
        kind = kinds[rng.choice(len(kinds), p=shares)]
        chosen = rng.choice(kind, min(BATCH, len(kind)), replace=False)
        room = [min(side[i] for side in (_blocks(images[k]) for k in chosen)) for i in range(2)]
        top, left = (int(rng.integers(blocks + 1)) for blocks in room)
        crops = torch.cat([padded(_crop(images[k], top, left)) for k in chosen])
        return crops.to(device), torch.from_numpy(classes[chosen]).to(device), top, left

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        seen = [coefficients(batch()[0], _cosines().to(device)).transpose(0, 1).flatten(1) for _ in range(8)]
        every = torch.cat(seen, 1)
        rows, columns = (min(PLACES, max(-(-side // BLOCK) for side in sides)) for sides in _sides(images))
        model = RateLimited(every.mean(1), every.std(1), int(classes.max()) + 1, rows, columns).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
        for _ in range(steps):
            x, labels, top, left = batch()
            mean, log_variance = model.latent(x)
            z = mean + torch.randn(mean.shape).to(mean) * (log_variance / 2).exp()
            nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / x[:, 0].numel()
            error = x - model.reconstruction(z)
            unexplained = error.detach() - model.residual(z.detach(), labels, top, left)
            distortion = (error.square() + unexplained.square()).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            (distortion + PRESSURE * F.relu(nats - rate)).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _sides(images: Sequence[Image.Image]) -> tuple[list[int], list[int]]:
    return [image.height for image in images], [image.width for image in images]


def _blocks(image: Image.Image) -> tuple[int, int]:
    """How far a crop can move down and to the right, in blocks."""
    return max(0, image.height - CROP) // BLOCK, max(0, image.width - CROP) // BLOCK


def _crop(image: Image.Image, top: int, left: int) -> Image.Image:
    x, y = left * BLOCK, top * BLOCK
    return image.crop((x, y, min(x + CROP, image.width), min(y + CROP, image.height)))
