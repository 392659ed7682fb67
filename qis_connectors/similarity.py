"""Who counts as similar: a domain expert's definition, one YAML file, and the one formula that scores by it.

    name: near-latitude
    version: 1
    author: Colditz
    domain: clinical.tuberculosis
    threshold: 0.6
    fields:
      latitude: {kernel: numeric, scale: 10}
      allocation: {kernel: exact, weight: 0.5}

The score of two contexts is the weighted mean of a kernel for each field (Gower 1971, Biometrics 27:857), 0..1;
kernels.py has the kernels. Unlike Gower's, a field that either context lacks scores 0 and keeps its weight: who says
nothing is similar to nobody. A definition without fields finds everybody similar to everybody.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import yaml
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from qis_connectors.errors import QisError
from qis_connectors.kernels import Kernel, Rows, Scores, Strict
from qis_connectors.mistakes import Place, did_you_mean, line_of, read_mapping

Context = dict[str, Any]
_KERNELS: dict[str, type[Strict]] = {
    get_args(one.model_fields["kernel"].annotation)[0]: one for one in get_args(get_args(Kernel)[0])
}


class SimilarityError(QisError):
    """A definition is wrong or not there, or a context is none; the text names the file, line or field."""


class Encoded:
    """Contexts by column, as one definition scores them; more can be added."""

    def __init__(self, fields: "dict[str, Kernel]") -> None:
        self.size = 0
        self.columns: dict[str, Any] = {name: kernel.column() for name, kernel in fields.items()}

    def add(self, contexts: Sequence[Context]) -> None:
        """These, with the numbers from `size` on; what they have beside the definition's fields is left out."""
        for name, column in self.columns.items():
            column.add([context.get(name) for context in contexts])
        self.size += len(contexts)


class Definition(Strict):
    """One expert's answer to who is similar in a domain; frozen, so that a name and a version mean one thing."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="What readers ask for it by")
    version: int = Field(ge=1, description="One more with each change of what it means")
    author: str = Field(description="Who answers for it, and what it rests on")
    domain: str = Field(description="The domain of the packets it was made for")
    threshold: float = Field(ge=0, le=1, description="From this score on two contexts are similar")
    fields: dict[str, Kernel] = Field(description="Field of the context -> how two values of it compare")

    def encode(self, contexts: Sequence[Context]) -> Encoded:
        """The contexts as `scores` takes them."""
        encoded = Encoded(self.fields)
        encoded.add(contexts)
        return encoded

    def scores(self, own: Context, others: Encoded, rows: Rows | None = None) -> Scores:
        """float64 scores, 0..1, of `own` with `others`, which this definition has encoded, or with those at `rows`."""
        size = others.size if rows is None else len(rows)
        which = slice(size) if rows is None else rows
        if not self.fields:
            return np.ones(size)
        total = np.zeros(size)
        for name, kernel in self.fields.items():
            total += kernel.weight * kernel.scores(own.get(name), others.columns[name], which)
        weights = sum(kernel.weight for kernel in self.fields.values())
        return np.minimum(total / weights, 1.0)  # a sum may round to a hair above itself

    def best_score(self, own: Context) -> float:
        """The highest score that any context has with `own`: less than 1 where `own` lacks a field."""
        return float(self.scores(own, self.encode([own]))[0])


class Definitions:
    """Those of one folder; one name is one definition, and DOMAIN.yaml is what its domain, and those below it, are
    read by unless a reader names another."""

    def __init__(self, found: Sequence[Definition], of_domain: dict[str, Definition]) -> None:
        self.by_name = {one.name: one for one in found}
        self._of_domain = of_domain

    @classmethod
    def none(cls) -> Self:
        return cls((), {})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """SimilarityError, naming the file, where one is wrong or two have one name, or where there is no folder."""
        if not folder.is_dir():
            raise SimilarityError(f"{folder}: is no folder of similarity definitions")
        found: dict[str, tuple[Path, Definition]] = {}
        for path in sorted(folder.glob("*.yaml")):
            one = load(path)
            if one.name in found:
                raise SimilarityError(f"{path}: 'name': {one.name!r} is that of {found[one.name][0].name} too")
            found[one.name] = path, one
        of_domain = {one.domain: one for path, one in found.values() if path.stem == one.domain}
        return cls([one for _, one in found.values()], of_domain)

    def named(self, name: str) -> Definition:
        """SimilarityError, with what was probably meant, where there is none of that name."""
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            meant = did_you_mean(name, self.by_name)
            raise SimilarityError(f"similarity definition {name!r:.60} is not known here{meant}; known: {known}")
        return self.by_name[name]

    def of_domain(self, domain: str) -> Definition | None:
        """The one in DOMAIN.yaml, else that of the domain above it: training's for training.digits."""
        while domain not in self._of_domain and "." in domain:
            domain = domain.rpartition(".")[0]
        return self._of_domain.get(domain)


def load(path: Path) -> Definition:
    """The definition in a YAML file; SimilarityError names file and line of the first mistake, and what was meant."""
    content, node = read_mapping(path, "a similarity definition", SimilarityError)
    try:
        return Definition.model_validate(content)
    except ValidationError as error:
        raise SimilarityError(f"{path}:{_mistake(error, node)}") from None


def context_of(text: str | None) -> Context:
    """The context in a packet's field of that name; empty where it has none."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):  # the router takes none such, but tables are written by others too
        return {}
    return found if isinstance(found, dict) else {}


def _mistake(error: ValidationError, node: yaml.Node | None) -> str:
    # A misspelt field is also a missing one; the misspelling is what helps.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    place = _written(first["loc"])
    return f"{line_of(node, place)}: {'.'.join(map(str, place))!r}{_explain(first)}"


def _written(place: Place) -> Place:
    """The place without the name that pydantic gives to the member of a union, which nobody wrote."""
    return place[:2] + place[3:] if place[:1] == ("fields",) and len(place) > 2 else place


def _explain(error: ErrorDetails) -> str:
    place = error["loc"]
    if error["type"] == "missing":
        return " is missing"
    if error["type"] == "extra_forbidden":
        model = _KERNELS[str(place[2])] if len(place) > 2 else Definition
        owner = f"the kernel {place[2]}" if len(place) > 2 else "a similarity definition"
        return f" is not a field of {owner}{did_you_mean(str(place[-1]), model.model_fields)}"
    if error["type"] == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f": {tag!r} is not one of {', '.join(_KERNELS)}{did_you_mean(tag, _KERNELS)}"
    if error["type"] == "union_tag_not_found":
        return f" has no 'kernel'; there are {', '.join(_KERNELS)}"
    return f": {error['msg'].removeprefix('Value error, ')}"
