"""What the columns of a table of `datasets` mean as texts."""

from __future__ import annotations

from typing import Any


def with_class_names(value: Any, feature: Any) -> Any:
    """A value of a column with the names of classes in place of their numbers, also in lists; None for a class that is
    not known (-1). `feature` is the column's in `datasets.Features`."""
    import datasets

    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int):
        return feature.int2str(value) if value >= 0 else None
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if isinstance(value, list) and inner is not None:
        return [with_class_names(each, inner) for each in value]
    return value


def as_text(value: Any) -> Any:
    """A value with whole numbers as the texts that they are written as, also in lists. Raises `ValueError` for other
    numbers and for truth values, which can be written in more than one way."""
    if isinstance(value, list):
        return list(map(as_text, value))
    if isinstance(value, bool | float):
        kind = "truth value" if isinstance(value, bool) else "number that may have a fraction"
        raise ValueError(f"{value!r} is a {kind}, not a text: cast the column to texts or whole numbers")
    return str(value) if isinstance(value, int) else value
