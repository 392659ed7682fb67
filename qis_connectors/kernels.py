"""The kernels of a similarity definition: how alike two values of one field are, 0..1.

    exact      1 where both say the same
    path       the share of leading segments in common, of the longer path: eu/de/berlin and eu/de/bonn 2/3
    numeric    exp(-(a - b)^2 / (2 scale^2)); the scale is in the field's own unit
    category   1 where both say the same, else what `alike` says of the two, else 0

Two values are the same as JSON has it: 1 is 1.0 and is not true. A value that a kernel cannot compare, a text or an
infinity where it wants a number, is as good as none, and none scores 0.
"""

import json
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]
NONE = -1
LEVELS = 16
"""Segments of a path that are compared all contexts at once; deeper ones, one by one."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Column:
    """A growing array. What is in it stays as it is, so that it can be read while it grows."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._room = np.empty(0, kind)
        self._size = 0

    @property
    def array(self) -> NDArray[Any]:
        return self._room[: self._size]

    def append(self, values: Sequence[float] | NDArray[Any]) -> None:
        end = self._size + len(values)
        if end > len(self._room):
            room = np.empty(max(end, 2 * len(self._room)), self._room.dtype)
            room[: self._size] = self.array
            self._room = room
        self._room[self._size : end] = values
        self._size = end


class Numbers(Column):
    """A field of many contexts: float64, NaN where one has no number there."""

    def __init__(self) -> None:
        super().__init__(np.float64)

    def add(self, values: Sequence[object]) -> None:
        self.append([number(value) for value in values])


class Values(Column):
    """A field of many contexts: the distinct values, and for each context which of them it has, NONE for none."""

    def __init__(self) -> None:
        super().__init__(np.int64)
        self.distinct: list[object] = []
        self.code_of: dict[object, int] = {}

    def add(self, values: Sequence[object]) -> None:
        self.append([self._code(value) for value in values])

    def _code(self, value: object) -> int:
        key = said(value)
        if key is None:
            return NONE
        if (code := self.code_of.get(key)) is None:
            code = self.code_of[key] = len(self.distinct)
            self.distinct.append(value)
        return code


class Paths(Values):
    """The same of paths; of each the leading parts, by number, that its first LEVELS segments make."""

    def __init__(self) -> None:
        super().__init__()
        self._part_of: dict[tuple[int, str], int] = {}
        self._levels = [Column(np.int32) for _ in range(LEVELS)]
        self._lengths = Column(np.int32)

    def add(self, values: Sequence[object]) -> None:
        super().add([value if isinstance(value, str) else None for value in values])
        fresh = [str(value).split("/") for value in self.distinct[len(self._lengths.array) :]]
        parts = [self._parts(segments, self._number) for segments in fresh]
        for at, level in enumerate(self._levels):
            level.append([found[at] if at < len(found) else NONE for found in parts])
        self._lengths.append([len(segments) for segments in fresh])

    def common(self, own: list[str], rows: Rows | slice) -> Scores:
        """The share of leading segments in common with `own`."""
        lengths = self._lengths.array
        common = np.zeros(len(lengths) + 1, np.int32)  # the last is for NONE
        for level, part in zip(self._levels, self._parts(own, self._part_of.get), strict=False):
            common[:-1] += level.array[: len(lengths)] == part
        if len(own) > LEVELS:
            for code in np.flatnonzero(common == LEVELS).tolist():
                common[code] = _common(own, str(self.distinct[code]).split("/"))
        return (common / np.append(np.maximum(lengths, len(own)), 1))[self.array[rows]]  # type: ignore[no-any-return]

    def _number(self, key: tuple[int, str]) -> int:
        return self._part_of.setdefault(key, len(self._part_of))

    def _parts(self, segments: list[str], number_of: Callable[[tuple[int, str]], int | None]) -> list[int]:
        """The numbers of the leading parts, shortest first, up to the first that has none."""
        parts, part = [], NONE
        for segment in segments[:LEVELS]:
            found = number_of((part, segment))
            if found is None:
                break
            parts.append(part := found)
        return parts


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

    def column(self) -> Paths:
        return Paths()

    def scores(self, own: object, column: Paths, rows: Rows | slice) -> Scores:
        return column.common(own.split("/") if isinstance(own, str) else [], rows)


Kernel = Annotated[Exact | PathPrefix | Category | Numeric, Field(discriminator="kernel")]


def _common(one: list[str], other: list[str]) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


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
