"""What `arena protect` takes from a data set that `datasets` wrote."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from arena.data.fixtures import table
from arena.errors import UsageError
from arena.owner.originals import read_originals


def test_one_saved_split_answers_to_its_own_name_alone(tmp_path: Path) -> None:
    named = datasets.Dataset(table("vqa-rad", range(4)).data, split=datasets.Split.TEST)
    for rows, own, other in ((named, "test", "train"), (table("vqa-rad", range(4)), "train", "test")):
        folder = tmp_path / own
        rows.save_to_disk(str(folder))
        assert len(read_originals(str(folder), split=own).samples) == 4
        with pytest.raises(UsageError, match=rf"no split '{other}': name one of {own}"):
            read_originals(str(folder), split=other)
