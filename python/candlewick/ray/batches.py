"""Ray's batches, a ``dict`` of NumPy arrays, a pandas ``DataFrame`` or an Arrow ``Table``, by their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from candlewick.errors import InvalidRequestError


def names(batch: Any) -> list[str]:
    """The columns that there are."""
    return list(batch.column_names if hasattr(batch, "column_names") else batch)


def column(batch: Any, name: str) -> list[Any]:
    """The values of a column, as Python has them.

    Raises:
        InvalidRequestError: There is no such column.
    """
    there = names(batch)
    if name not in there:
        raise InvalidRequestError(f"there is no column {name!r}, expected one of {there}")
    values = batch[name]
    return [_plain(value) for value in (values.to_pylist() if hasattr(values, "to_pylist") else values.tolist())]


def _plain(value: Any) -> Any:
    """Lists come as arrays, and what one row's dict has and another's has not as ``None``."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def with_columns(batch: Any, columns: Mapping[str, list[Any]]) -> Any:
    """The batch with further columns, in the form that it came in.

    Raises:
        InvalidRequestError: One of them is there already.
    """
    taken = set(columns).intersection(names(batch))
    if taken:
        raise InvalidRequestError(
            f"there is a column {min(taken)!r} already, where the result should go: name others with `columns`"
        )
    if isinstance(batch, dict):
        import numpy as np

        # NumPy's own strings lose a NUL at their end.
        texts = {name for name, values in columns.items() if isinstance(next(iter(values), ""), str)}
        return {**batch, **{name: np.array(columns[name], object if name in texts else None) for name in columns}}
    if hasattr(batch, "assign"):
        return batch.assign(**columns)
    for name, values in columns.items():
        batch = batch.append_column(name, [values])
    return batch
