"""Real handwriting as visual question answering: which digit is this?"""

from __future__ import annotations

import numpy as np
from PIL import Image

from arena.data.sample import Sample, Splits
from arena.errors import UsageError
from arena.plugins.base import Dataset

SIZE = 40
QUESTIONS = (
    "which digit is this?",
    "what digit is written here?",
    "what number is shown in the picture?",
    "name the handwritten digit.",
    "read the digit in this image.",
    "tell me which number is written here.",
)
ANSWERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits(Dataset):
    """1,797 handwritten digits by 13 writers, 8 x 8 with 17 grey levels, enlarged to 40 x 40, mode ``L``, ink white.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    doi 10.24432/C50P49, CC BY 4.0; its test part, of which scikit-learn ships a copy.
    """

    convention = "exact"
    packages = ("numpy", "pillow", "scikit-learn")

    def load(self, train: int, auxiliary: int, test: int, seed: int) -> Splits:
        """Splits cut from one seeded permutation; a sample's number is its place in the source.

        Raises `UsageError` if more samples are asked for than there are.
        """
        from sklearn.datasets import load_digits

        source = load_digits()
        total = len(source.target)
        if train + auxiliary + test > total:
            raise UsageError(
                f"digits: {train} training, {auxiliary} auxiliary and {test} test samples are "
                f"{train + auxiliary + test - total} more than the {total} there are: ask for fewer"
            )
        rng = np.random.default_rng(seed)
        order = rng.permutation(total)
        questions = rng.integers(len(QUESTIONS), size=total)

        def part(numbers: np.ndarray) -> tuple[Sample, ...]:
            return tuple(
                Sample(
                    f"digits-{n:05d}",
                    _enlarged(source.images[n]),
                    QUESTIONS[questions[n]],
                    ANSWERS[source.target[n]],
                )
                for n in numbers
            )

        cuts = np.cumsum([train, auxiliary, test])
        return Splits(*(part(chunk) for chunk in np.split(order, cuts)[:3]))


def _enlarged(grey: np.ndarray) -> Image.Image:
    """A picture of an ``(8, 8)`` array of grey levels in 0..16."""
    small = Image.fromarray(np.rint(grey * (255 / 16)).astype(np.uint8))
    return small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
