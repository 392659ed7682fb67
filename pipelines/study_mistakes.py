"""What is wrong in a study file, in one line: where it is written and what to write instead."""

from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipelines import study_fields as fields
from qis_connectors.errors import QisError
from qis_connectors.mistakes import Place, did_you_mean, line_of

_PARTS: dict[int | str, type[BaseModel]] = {
    "arms": fields.Arms,
    "binary": fields.Binary,
    "continuous": fields.Continuous,
    "count": fields.Count,
    "time_to_event": fields.TimeToEvent,
    "query": fields.Query,
    "intervention": fields.Intervention,
    "missing": fields.Missing,
    "likelihood": fields.Grid,
    "gate": fields.Gate,
    "linter": fields.Linter,
    "noise": fields.Noise,
}


class StudyError(QisError):
    """The study file is wrong; the text names the file, the line and what to write instead."""


class NothingToCompareError(StudyError):
    """There are no rows, or none in one of the arms."""


def mistake(error: ValidationError, kind: type[BaseModel], node: yaml.Node | None) -> str:
    """`LINE: what is wrong` of the first mistake."""
    # A misspelt field is also a missing one; the misspelling is what helps.
    first = min(error.errors(), key=lambda one: one["type"] == "missing")
    written = _written(first["loc"])
    return f"{line_of(node, written)}: {_explain(first, kind, written)}"


def _written(place: Place) -> Place:
    """The place without the names pydantic gives to the members of a union, which nobody wrote."""
    if place[:1] == ("outcome",) or place[:1] == ("rows",):
        place = (place[0], *place[2:])
    return tuple(part for part in place if part not in ("bool", "int", "float", "str", "date", "constrained-str"))


def _explain(error: ErrorDetails, kind: type[BaseModel], written: Place) -> str:
    name = ".".join(str(part) for part in written) or "study"
    if error["type"] == "extra_forbidden":
        model = _PARTS.get(error["loc"][-2], kind) if len(error["loc"]) > 1 else kind
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"{name!r} is not a field of a study{did_you_mean(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{name!r} is missing"
    if error["type"] == "union_tag_invalid":
        tag, known = str(error["ctx"]["tag"]), list(get_args(fields.Outcome)[0].__args__)
        kinds = [get_args(one)[1].tag for one in known]
        return f"'{name}.kind': {tag!r} is not one of {', '.join(kinds)}{did_you_mean(tag, kinds)}"
    return f"{name!r}: {error['msg'].removeprefix('Value error, ')}"
