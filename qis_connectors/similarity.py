"""Who counts as similar: a domain expert's definition, one YAML file, and the one formula that scores by it.

    name: near-latitude
    version: 1
    author: Colditz
    domain: clinical.tuberculosis
    threshold: 0.6
    fields:
      latitude: {kernel: numeric, scale: 10}
      allocation: {kernel: exact, weight: 0.5}

The score of two contexts is the weighted mean of a kernel for each field (Gower 1971, Biometrics 27:857), 0..1:

    exact      1 where both say the same
    path       the share of leading segments in common, of the longer path: eu/de/berlin and eu/de/bonn 2/3
    numeric    exp(-(a - b)^2 / (2 scale^2)); the scale is in the field's own unit
    category   1 where both say the same, else what `alike` says of the two, else 0

Unlike Gower's, a field that either context lacks scores 0 and keeps its weight: who says nothing is similar to nobody.
A definition without fields finds everybody similar to everybody.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qis_connectors.errors import QisError

Scores = NDArray[np.float64]
Context = dict[str, Any]


class SimilarityError(QisError):
    """A definition or a context is wrong; the text names the file or field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Kernel(_Strict):
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Exact(_Kernel):
    kernel: Literal["exact"]

    def of(self, own: object, other: object) -> float:
        return float(own == other)


class PathPrefix(_Kernel):
    kernel: Literal["path"]

    def of(self, own: object, other: object) -> float:
        if not isinstance(own, str) or not isinstance(other, str):
            return 0.0
        ours, theirs = own.split("/"), other.split("/")
        common = 0
        for mine, yours in zip(ours, theirs, strict=False):
            if mine != yours:
                break
            common += 1
        return common / max(len(ours), len(theirs))


# YAML has lists, which a strict tuple would not take.
_Alike = Annotated[tuple[str, str, Annotated[float, Field(ge=0, le=1)]], Field(strict=False)]


class Category(_Kernel):
    kernel: Literal["category"]
    alike: tuple[_Alike, ...] = Field(default=(), strict=False)

    def of(self, own: object, other: object) -> float:
        if own == other:
            return 1.0
        return max((score for one, two, score in self.alike if {own, other} == {one, two}), default=0.0)


class Numeric(_Kernel):
    kernel: Literal["numeric"]
    scale: float = Field(gt=0, allow_inf_nan=False)


Kernel = Annotated[Exact | PathPrefix | Category | Numeric, Field(discriminator="kernel")]


@dataclass(frozen=True)
class Encoded:
    """Contexts by column, once for many scorings: numbers as float64, NaN where there is none; of the rest the distinct
    values, and for each context which of them it has, -1 for none."""

    size: int
    numbers: dict[str, Scores]
    values: dict[str, tuple[list[Any], NDArray[np.int64]]]


class Definition(_Strict):
    """One expert's answer to who is similar in a domain; frozen, so that a name and a version mean one thing."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    version: int = Field(ge=1)
    author: str
    domain: str
    threshold: float = Field(ge=0, le=1)
    fields: dict[str, Kernel]

    def encode(self, contexts: Sequence[Context]) -> Encoded:
        """The contexts as `scores` takes them; what a context has beside the definition's fields is left out."""
        numbers, values = {}, {}
        for name, kernel in self.fields.items():
            column = [context.get(name) for context in contexts]
            if isinstance(kernel, Numeric):
                numbers[name] = np.array([_number(value) for value in column], dtype=np.float64)
            else:
                values[name] = _coded(column)
        return Encoded(len(contexts), numbers, values)

    def scores(self, own: Context, others: Encoded) -> Scores:
        """float64 scores, 0..1, of `own` with each of `others`, which this definition has encoded."""
        if not self.fields:
            return np.ones(others.size)
        total = np.zeros(others.size)
        for name, kernel in self.fields.items():
            if isinstance(kernel, Numeric):
                distance = (others.numbers[name] - _number(own.get(name))) / kernel.scale
                total += kernel.weight * np.nan_to_num(np.exp(-0.5 * distance**2), nan=0.0)
            else:
                total += kernel.weight * _of_values(kernel.of, own.get(name), *others.values[name])
        weights = sum(kernel.weight for kernel in self.fields.values())
        return np.minimum(total / weights, 1.0)  # a sum of weights may round to a hair above itself


def load(path: Path) -> Definition:
    """The definition in a YAML file; SimilarityError, naming the file and the field, where there is none."""
    try:
        return Definition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SimilarityError(f"{path}: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise SimilarityError(f"{path}: {'.'.join(map(str, first['loc']))!r}: {first['msg']}") from None


def context_of(text: str | None) -> Context:
    """The context in a packet's field of that name; empty where it has none."""
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _coded(column: list[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    known: dict[str, int] = {}
    values: list[Any] = []
    codes = np.full(len(column), -1, dtype=np.int64)
    for at, value in enumerate(column):
        if value is None:
            continue
        key = json.dumps(value, sort_keys=True)
        if key not in known:
            known[key] = len(values)
            values.append(value)
        codes[at] = known[key]
    return values, codes


def _of_values(
    of: Callable[[object, object], float], own: object, values: list[Any], codes: NDArray[np.int64]
) -> Scores:
    if own is None:
        return np.zeros(len(codes))
    by_value = np.array([*(of(own, value) for value in values), 0.0])  # the last is for -1, no value
    return by_value[codes]
