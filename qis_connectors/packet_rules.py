"""What the values of a packet must be: asked one by one, to name the culprit, or of whole columns, to be quick."""

import json
from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors.packet_id import byte_lengths

_TEXTS = (pa.string(), pa.binary())


def _is_not_blank(text: str) -> bool:
    return bool(text.strip())


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are not JSON


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except (ValueError, RecursionError):
        return False


# field, what a value must be, what is said of one that is not. NULL is not a matter of this table.
# What is good of a number is an interval, so that of many the least and the greatest tell.
RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    *(
        (name, _is_not_blank, "is empty")
        for name in ("node_id", "domain", "problem_type", "metric_name", "intervention_type")
    ),
    *((name, isfinite, "is not a finite number") for name in ("metric_delta", "metric_value", "metric_stderr")),
    ("confidence", lambda value: 0 <= value <= 1, "is outside 0..1"),
    ("outcome_decile", lambda value: 1 <= value <= 10, "is outside 1..10"),
    ("sample_count", lambda value: value >= 1, "is not at least 1"),
    ("metric_stderr", lambda value: value > 0, "is not above 0: it would be an infinite weight"),
    ("intervention_params", _is_json_object, "is not a JSON object"),
    ("context", _is_json_object, "is not a JSON object"),
)


def hold(batch: pa.RecordBatch) -> bool:
    """Whether every value of every column keeps its rules."""
    return all(_holds(batch[name], is_good) for name, is_good, _ in RULES) and _is_finite(batch["likelihood"])


def are_within(batch: pa.RecordBatch, fixed: float, limit: int, limit_with_likelihood: int) -> bool:
    """Whether every packet keeps its limit, given the bytes of one without likelihood and text but its id."""
    sizes = np.full(batch.num_rows, fixed)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name != "packet_id" and column.type in _TEXTS:
            sizes += byte_lengths(column)
    likelihood = batch["likelihood"]
    if likelihood.null_count == len(likelihood):
        return bool(sizes.max() <= limit)
    sizes += 4 * pc.list_value_length(likelihood).fill_null(0).to_numpy()
    limits = np.where(likelihood.is_valid().to_numpy(zero_copy_only=False), limit_with_likelihood, limit)
    return bool((sizes <= limits).all())


def _holds(column: pa.Array, is_good: Callable[[Any], bool]) -> bool:
    if column.null_count == len(column):
        return True
    if column.type == pa.string():
        return all(is_good(text) for text in column.unique().to_pylist() if text is not None)
    numbers = (column.drop_null() if column.null_count else column).to_numpy()
    return is_good(numbers.min().item()) and is_good(numbers.max().item())


def _is_finite(likelihood: pa.ListArray) -> bool:
    if likelihood.null_count == len(likelihood):
        return True
    items = likelihood.flatten()  # of those that are not NULL
    return items.null_count == 0 and bool(np.isfinite(items.to_numpy()).all())
