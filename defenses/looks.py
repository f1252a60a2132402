"""What surrogates are shown in place of pictures, by methods that craft and by the claims that are tested of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Loss = Callable[[Sequence[Tensor]], Tensor]
"""The losses of a batch's samples added up, from its pictures, float ``(3, H, W)`` in [0, 1] on the model's device."""

Look = Callable[[list[Tensor], Loss], list[Tensor]]
"""What a surrogate is shown in place of a batch's pictures, differentiably and of their sizes. It may ask for the loss
of any."""


def as_they_are(images: list[Tensor], loss: Loss) -> list[Tensor]:
    """The pictures themselves."""
    return images
