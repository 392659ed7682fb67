"""The kernels of a similarity definition: how alike two values of one field are, 0..1.

    exact      1 where both say the same
    path       the share of leading segments in common, of the longer path: eu/de/berlin and eu/de/bonn 2/3
    numeric    exp(-(a - b)^2 / (2 scale^2)); the scale is in the field's own unit
    category   1 where both say the same, else what `alike` says of the two, else 0

Two values are the same as JSON has it: 1 is 1.0 and is not true. A value that a kernel cannot compare, a text or an
infinity where it wants a number, is as good as none, and none scores 0.
"""

import json
from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]
NONE = -1


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Column:
    """A growing array, a value a context."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._room = np.empty(0, kind)
        self._size = 0

    @property
    def array(self) -> NDArray[Any]:
        return self._room[: self._size]

    def _append(self, values: Sequence[float]) -> None:
        end = self._size + len(values)
        if end > len(self._room):
            room = np.empty(max(end, 2 * len(self._room)), self._room.dtype)
            room[: self._size] = self.array
            self._room = room
        self._room[self._size : end] = values
        self._size = end


class Numbers(_Column):
    """A field of many contexts: float64, NaN where one has no number there."""

    def __init__(self) -> None:
        super().__init__(np.float64)

    def add(self, values: Sequence[object]) -> None:
        self._append([number(value) for value in values])


class Values(_Column):
    """A field of many contexts: the distinct values, and for each context which of them it has, NONE for none."""

    def __init__(self) -> None:
        super().__init__(np.int64)
        self.distinct: list[object] = []
        self.code_of: dict[object, int] = {}

    def add(self, values: Sequence[object]) -> None:
        self._append([self._code(value) for value in values])

    def _code(self, value: object) -> int:
        key = said(value)
        if key is None:
            return NONE
        if (code := self.code_of.get(key)) is None:
            code = self.code_of[key] = len(self.distinct)
            self.distinct.append(value)
        return code


class _Kernel(Strict):
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Numeric(_Kernel):
    kernel: Literal["numeric"]
    scale: float = Field(gt=0, allow_inf_nan=False)

    def column(self) -> Numbers:
        return Numbers()

    def scores(self, own: object, column: Numbers, rows: Rows | slice) -> Scores:
        with np.errstate(over="ignore"):  # so far apart that the square is no double: 0
            distance = (column.array[rows] - number(own)) / self.scale
            return np.nan_to_num(np.exp(-0.5 * distance**2), nan=0.0)


class _Coded(_Kernel):
    """A kernel of values that are the same or not."""

    def column(self) -> Values:
        return Values()

    def scores(self, own: object, column: Values, rows: Rows | slice) -> Scores:
        codes = column.array[rows]
        found = np.zeros(len(codes))
        for other, score in self.alike_to(said(own)):
            if (code := column.code_of.get(other)) is not None:
                found[codes == code] = score
        return found

    def alike_to(self, own: object) -> list[tuple[object, float]]:
        """The values that score above 0 with `own`, the same one last."""
        return [] if own is None else [(own, 1.0)]


class Exact(_Coded):
    kernel: Literal["exact"]


# YAML has lists, which a strict tuple would not take.
_Alike = Annotated[tuple[str, str, Annotated[float, Field(ge=0, le=1)]], Field(strict=False)]


class Category(_Coded):
    kernel: Literal["category"]
    alike: tuple[_Alike, ...] = Field(default=(), strict=False)

    def alike_to(self, own: object) -> list[tuple[object, float]]:
        pairs = [(two if own == one else one, score) for one, two, score in self.alike if own in (one, two)]
        return sorted(pairs, key=lambda pair: pair[1]) + super().alike_to(own)  # the highest counts where one is twice


class PathPrefix(_Kernel):
    kernel: Literal["path"]

    def column(self) -> Values:
        return Values()

    def scores(self, own: object, column: Values, rows: Rows | slice) -> Scores:
        codes = column.array[rows]
        found, which = np.unique(codes, return_inverse=True)
        if not isinstance(own, str):
            return np.zeros(len(codes))
        ours = own.split("/")
        by_value = [0.0 if code == NONE else _common(ours, column.distinct[code]) for code in found.tolist()]
        return np.array(by_value, np.float64)[which]


Kernel = Annotated[Exact | PathPrefix | Category | Numeric, Field(discriminator="kernel")]


def _common(ours: list[str], other: object) -> float:
    if not isinstance(other, str):
        return 0.0
    theirs = other.split("/")
    common = 0
    for mine, yours in zip(ours, theirs, strict=False):
        if mine != yours:
            break
        common += 1
    return common / max(len(ours), len(theirs))


def number(value: object) -> float:
    """NaN where it is no finite one that a double holds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return np.nan
    try:
        return float(value) if isfinite(value) else np.nan
    except OverflowError:  # JSON can spell whole numbers that no double holds
        return np.nan


def said(value: object) -> object:
    """What can be looked up and is equal where JSON says the same; None where it says nothing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | float):
        return ("number", value) if value == value else None  # NaN says nothing
    try:
        return ("json", json.dumps(value, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        return None
