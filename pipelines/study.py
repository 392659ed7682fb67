"""A study: where a site's rows are, what was tried, what came of it, and what may leave. One YAML file."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipelines.effects import MEASURES
from qis_connectors import address
from qis_connectors.errors import QisError

DEFAULT_MIN_CELL = 11
"""The smallest count most health agencies publish (CMS cell size suppression policy: 1 to 10 are withheld)."""

Scalar = bool | int | float | str
Text = Annotated[str, Field(min_length=1)]


class StudyError(QisError):
    """The study file is wrong; the text names the file, the line and what to write instead."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arms(_Strict):
    """The column that says who was treated, and its two values."""

    column: Text
    treated: Scalar
    control: Scalar


class Outcome(_Strict):
    """A binary outcome: the column and the value that is the event; `better` says which direction is good."""

    column: Text
    event: Scalar
    better: Literal["lower", "higher"]


class Intervention(_Strict):
    type: Text
    params: dict[str, Any] = {}


class Gate(_Strict):
    """Cells of 1..min_cell-1 people are withheld with the packet they belong to; 0 is allowed."""

    min_cell: Annotated[int, Field(ge=1)] = DEFAULT_MIN_CELL
    why: str = ""

    @model_validator(mode="after")
    def _explain(self) -> "Gate":
        if self.min_cell < DEFAULT_MIN_CELL and not self.why.strip():
            raise ValueError(f"min_cell below {DEFAULT_MIN_CELL} needs a reason: write it under 'why'")
        return self


def _known_measure(name: str) -> str:
    if name not in MEASURES:
        raise ValueError(f"is not one of {', '.join(MEASURES)}{_did_you_mean(name, MEASURES)}")
    return name


class Study(_Strict):
    """One study. `rows` is a path relative to the file; `{site}` in it stands for each site's name, `{month}` for a
    month (2013-01) where the rows come month by month."""

    study: Text
    domain: Text
    problem_type: Text
    training_phase: str = ""
    rows: Text
    site: Text | None = None
    arms: Arms
    outcome: Outcome
    effect: Annotated[str, AfterValidator(_known_measure)]
    intervention: Intervention
    context: tuple[str, ...] = ()
    time: Text
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _one_way_to_name_a_site(self) -> "Study":
        if ("{site}" in self.rows) == (self.site is not None):
            raise ValueError("needs either {site} in 'rows' or the one name under 'site'")
        address.of(self.domain, self.problem_type)
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the rows that the study reads."""
        return tuple(dict.fromkeys((self.arms.column, self.outcome.column, *self.context, self.time)))

    def of(self, month: str) -> "Study":
        """The study of one month (2013-01): `{month}` in `rows` stands for it, and it is the training phase."""
        if not month:
            return self
        return self.model_copy(update={"rows": self.rows.replace("{month}", month), "training_phase": month})

    def row_files(self, folder: Path) -> dict[str, Path]:
        """Site name -> its rows, for the files there are below `folder`, sorted by name."""
        if self.site is not None:
            found = {self.site: folder / self.rows}
        else:
            before, after = self.rows.split("{site}", 1)
            skip, end = len(str(folder / "_")) - 1 + len(before), len(after)
            found = {str(path)[skip : len(str(path)) - end]: path for path in folder.glob(f"{before}*{after}")}
        found = {site: path for site, path in sorted(found.items()) if path.exists()}
        if not found:
            raise StudyError(f"study {self.study!r}: no rows at {folder / self.rows}")
        return found


def load(path: Path) -> Study:
    """The study in a YAML file; StudyError names the first wrong line."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise StudyError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}:1: a study is a mapping of names to values")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        # A misspelt field is also a missing one; the misspelling is what helps.
        first = min(error.errors(), key=lambda one: one["type"] == "missing")
        raise StudyError(f"{path}:{_line(node, first['loc'])}: {_explain(first)}") from None


def _explain(error: ErrorDetails) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "study"
    if error["type"] == "extra_forbidden":
        model: Any = Study
        for part in error["loc"][:-1]:
            model = model.model_fields[part].annotation
        known = tuple(model.model_fields)
        return f"{name!r} is not a field of a study{_did_you_mean(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{name!r} is missing"
    return f"{name!r}: {error['msg'].removeprefix('Value error, ')}"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `loc` that is written in the file, 1-based."""
    line = 1
    for step in _descend(node, loc):
        line = step
    return line


def _descend(node: yaml.Node | None, loc: tuple[int | str, ...]) -> Iterator[int]:
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                return
            key, node = found[0]
            yield key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            yield node.start_mark.line + 1
