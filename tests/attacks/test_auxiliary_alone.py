"""The control of attacks with clean data: no sample of the release is left, and there are as many as with it."""

from __future__ import annotations

from collections import Counter

import pytest
from small_samples import mixed_samples

from arena.data.sample import Sample
from arena.engine.stages.purify import check_purified
from arena.errors import ArenaError
from arena.plugins.base import AttackerWorld
from attacks.auxiliary_alone import AuxiliaryAlone
from attacks.mix import Mix


def content(sample: Sample) -> tuple[bytes, str, str]:
    return sample.image.tobytes(), sample.question, sample.answer


@pytest.mark.parametrize(("released", "own"), [(7, 3), (4, 4), (2, 5)])
def test_as_many_samples_as_with_the_release_and_none_of_it(released: int, own: int) -> None:
    every = mixed_samples(released + own)
    release, auxiliary = every[:released], tuple(every[released:])
    world = AttackerWorld(auxiliary=auxiliary)
    alone = list(AuxiliaryAlone().purify(release, world))
    check_purified(alone)
    assert len(alone) == len(list(Mix().purify(release, world)))
    times = Counter(map(content, alone))
    assert set(times) == set(map(content, auxiliary))
    assert max(times.values()) - min(times.values()) <= 1
    assert alone[:own] == list(auxiliary)


def test_without_own_data_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ArenaError, match="'auxiliary'"):
        list(AuxiliaryAlone().purify(mixed_samples(2), AttackerWorld()))
