"""What a reader wants of the packets at an address: conditions on their fields, joined by and/or, as in SQL's WHERE.

    ["sample_count", ">=", 100]
    {"and": [["sample_count", ">=", 100], {"or": [["metric_name", "in", ["val_auc", "f1"]], ["context", "is null"]]}]}

Operators: = != < <= > >= in, `is null`, `is not null`. As in SQL a comparison with NULL is unknown, and what is unknown
is not kept; there is no NOT, hence no NOT IN. Text compares by its UTF-8 bytes. A float32 field compares as a double: a
stored 0.1 is 0.10000000149011612, so ["confidence", "=", 0.1] keeps nothing. signature and likelihood have no values to
compare with in JSON: they know `is null` and `is not null` only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from sys import float_info
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

MAX_DEPTH = 16
"""So many groups within one another."""

MAX_TERMS = 256
"""So many conditions and groups together."""

_LARGEST = float_info.max
_COMPARISONS: dict[str, Callable[[pa.Array, pa.Scalar], pa.BooleanArray]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_NULL_TESTS: dict[str, Callable[[pa.Array], pa.BooleanArray]] = {"is null": pc.is_null, "is not null": pc.is_valid}
_OPERATORS = (*_COMPARISONS, "in", *_NULL_TESTS)
_GROUPS: dict[str, Callable[[pa.BooleanArray, pa.BooleanArray], pa.BooleanArray]] = {
    "and": pc.and_kleene,
    "or": pc.or_kleene,
}


class FilterError(QisError):
    """Not a filter; the text names the place in it, and the field, operator or value that is wrong."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"request field {place!r}: {reason}")


@dataclass(frozen=True)
class Condition:
    """`values` is one value for a comparison, any number for `in`, none for a test for NULL."""

    column: str
    operator: str
    values: tuple[str | int | float, ...] = ()

    @cached_property
    def _array(self) -> pa.Array:
        return pa.array(self.values, _common_type(self.column))

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        column = batch.column(self.column)
        if self.operator in _NULL_TESTS:
            return _NULL_TESTS[self.operator](column)
        column = column.cast(_common_type(self.column))
        if self.operator in _COMPARISONS:
            return _COMPARISONS[self.operator](column, self._array[0])
        if column.type == pa.float64():
            column = pc.add(column, 0.0)  # is_in compares bits, and -0.0 has others than 0.0
        return pc.is_in(column, self._array)  # false where SQL says unknown: no NOT, so nobody can tell


@dataclass(frozen=True)
class Group:
    operator: str
    terms: tuple["Filter", ...]

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        masks = (term.mask(batch) for term in self.terms)
        joined = next(masks)
        for mask in masks:
            joined = _GROUPS[self.operator](joined, mask)
        return joined


Filter = Condition | Group


def keep(where: Filter, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Which rows of `batch`, which has the filter's columns, are kept: true or false for each, never NULL."""
    return where.mask(batch).fill_null(False)


def columns(where: Filter) -> set[str]:
    """The fields the filter looks at."""
    return {where.column} if isinstance(where, Condition) else {name for term in where.terms for name in columns(term)}


def parse(value: object) -> Filter:
    """The filter in what JSON has read; FilterError where it is none, or too deep or too large."""
    return _term(value, "filters", 0, iter(range(MAX_TERMS)))


def _term(value: object, place: str, depth: int, budget: Iterator[int]) -> Filter:
    if next(budget, None) is None:
        raise FilterError("filters", f"has more than {MAX_TERMS} conditions and groups")
    if isinstance(value, dict):
        return _group(value, place, depth + 1, budget)
    if isinstance(value, list) and value:
        return _condition(value, place)
    raise FilterError(
        place, f'{value!r:.60} is neither [field, operator, value] nor {{"and": [...]}} or {{"or": [...]}}'
    )


def _group(value: dict[str, Any], place: str, depth: int, budget: Iterator[int]) -> Group:
    if depth > MAX_DEPTH:
        raise FilterError("filters", f"has more than {MAX_DEPTH} groups within one another")
    if len(value) != 1 or (operator := next(iter(value))) not in _GROUPS:
        raise FilterError(place, f"a group has one name, and or or; this one has {', '.join(value) or 'none'!r:.60}")
    terms = value[operator]
    if not isinstance(terms, list) or not terms:
        raise FilterError(f"{place}.{operator}", "is not a list of conditions")
    here = f"{place}.{operator}"
    return Group(operator, tuple(_term(term, f"{here}[{at}]", depth, budget) for at, term in enumerate(terms)))


def _condition(value: list[Any], place: str) -> Condition:
    name, operator, *rest = value if len(value) > 1 else (value[0], None)
    if name not in OUTCOME_PACKET_SCHEMA.names:
        raise FilterError(place, f"{name!r:.60} is not a field of a packet")
    place = f"{place} ({name})"
    if operator not in _OPERATORS:
        raise FilterError(place, f"{operator!r:.60} is not an operator; there are {', '.join(_OPERATORS)}")
    if len(rest) != (operator not in _NULL_TESTS):
        raise FilterError(
            place, f"{operator!r} takes {'no' if operator in _NULL_TESTS else 'one'} value, not {len(rest)}"
        )
    if operator in _NULL_TESTS:
        return Condition(name, operator)
    if operator != "in":
        return Condition(name, operator, (_value(rest[0], name, place),))
    if not isinstance(rest[0], list) or not rest[0]:
        raise FilterError(place, f"{rest[0]!r:.60} is not a list of values")
    return Condition(name, operator, tuple(_value(item, name, place) for item in rest[0]))


def _common_type(name: str) -> pa.DataType:
    """What a field and the values it meets are compared as."""
    kind = OUTCOME_PACKET_SCHEMA.field(name).type
    if kind == pa.float32():
        return pa.float64()
    return pa.int64() if pa.types.is_integer(kind) else kind


def _value(value: object, name: str, place: str) -> str | int | float:
    kind = _common_type(name)
    if value is None:
        raise FilterError(place, "null compares with nothing; write 'is null' or 'is not null'")
    if kind == pa.string():
        if isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value):
            return value
        raise FilterError(place, f"{value!r:.60} is not a text")
    if kind == pa.int64():
        if type(value) is int and -(2**63) <= value < 2**63:
            return value
        raise FilterError(place, f"{value!r:.60} is not a whole number of 64 bits")
    if kind == pa.float64():
        # Before float(): JSON can spell whole numbers that no double holds. NaN is in no range.
        if isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST:
            return float(value) + 0.0
        raise FilterError(place, f"{value!r:.60} is not a finite number")
    raise FilterError(place, f"a {OUTCOME_PACKET_SCHEMA.field(name).type} field knows 'is null' and 'is not null' only")
