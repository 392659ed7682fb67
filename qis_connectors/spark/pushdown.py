"""Conditions of a Spark query in the grammar of filters.py, so that the router applies them.

Both know SQL's NULL, compare text by its UTF-8 bytes and a float32 as a double. They part at NaN, which no packet's
field holds and which the grammar cannot say: such a condition stays with Spark, as does every other that
filters.py refuses.
"""

import json
from collections.abc import Callable
from typing import Any

from pyspark.sql.datasource import (
    EqualNullSafe,
    EqualTo,
    Filter,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNotNull,
    IsNull,
    LessThan,
    LessThanOrEqual,
    Not,
)

from qis_connectors import filters
from qis_connectors.request import MAX_BYTES

_MOST_BYTES = MAX_BYTES // 2  # the request has an address and columns too
Term = list[Any] | dict[str, Any]


class Pushdown:
    """The conditions that the router applies, joined by and; `given` is the first of them."""

    def __init__(self, given: Term | None = None) -> None:
        self._terms: list[Term] = [] if given is None else [given]

    @property
    def filters(self) -> Term | None:
        return {"and": self._terms} if self._terms else None

    def takes(self, condition: Filter) -> bool:
        """Whether the router applies it, in exactly Spark's sense; otherwise Spark has to."""
        term = _term(condition)
        if term is None:
            return False
        together = [*self._terms, term]
        try:
            filters.parse({"and": together})
        except filters.FilterError:
            return False
        if len(json.dumps(together)) > _MOST_BYTES:
            return False
        self._terms = together
        return True


def _term(condition: Filter) -> Term | None:
    if isinstance(condition, Not):
        inner = condition.child
        return _NEGATED[type(inner)](_column(inner), inner) if type(inner) in _NEGATED else None
    return _PLAIN[type(condition)](_column(condition), condition) if type(condition) in _PLAIN else None


def _column(condition: Any) -> str:  # noqa: ANN401 - those that _PLAIN lists have no base with an attribute
    return ".".join(condition.attribute)


def _in(name: str, values: tuple[Any, ...]) -> Term:
    """A row that is not in the list but meets a NULL there is unknown, and not kept either."""
    return [name, "in", [value for value in values if value is not None]]


def _not_in(name: str, values: tuple[Any, ...]) -> Term | None:
    """NOT IN of a list with a NULL is never true."""
    return None if None in values else {"and": [[name, "!=", value] for value in values]}


def _same(name: str, value: object) -> Term:
    """`<=>` knows no unknown."""
    return [name, "is null"] if value is None else [name, "=", value]


def _not_same(name: str, value: object) -> Term:
    return [name, "is not null"] if value is None else {"or": [[name, "!=", value], [name, "is null"]]}


_Writer = Callable[[str, Any], Term | None]
_PLAIN: dict[type[Filter], _Writer] = {
    EqualTo: lambda name, one: [name, "=", one.value],
    EqualNullSafe: lambda name, one: _same(name, one.value),
    GreaterThan: lambda name, one: [name, ">", one.value],
    GreaterThanOrEqual: lambda name, one: [name, ">=", one.value],
    LessThan: lambda name, one: [name, "<", one.value],
    LessThanOrEqual: lambda name, one: [name, "<=", one.value],
    In: lambda name, one: _in(name, one.value),
    IsNull: lambda name, _: [name, "is null"],
    IsNotNull: lambda name, _: [name, "is not null"],
}
_NEGATED: dict[type[Filter], _Writer] = {
    EqualTo: lambda name, one: [name, "!=", one.value],
    EqualNullSafe: lambda name, one: _not_same(name, one.value),
    GreaterThan: lambda name, one: [name, "<=", one.value],
    GreaterThanOrEqual: lambda name, one: [name, "<", one.value],
    LessThan: lambda name, one: [name, ">=", one.value],
    LessThanOrEqual: lambda name, one: [name, ">", one.value],
    In: lambda name, one: _not_in(name, one.value),
    IsNull: lambda name, _: [name, "is not null"],
    IsNotNull: lambda name, _: [name, "is null"],
}
