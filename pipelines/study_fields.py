"""The parts of a study file: arms, outcomes, what may leave. Their names and texts are also its JSON Schema."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

DEFAULT_MIN_CELL = 11
"""The smallest count most health agencies publish (CMS cell size suppression policy: 1 to 10 are withheld)."""

Scalar = bool | int | float | str
Text = Annotated[str, Field(min_length=1)]
Better = Literal["lower", "higher"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Query(Strict):
    """Rows that a database gives: a DuckDB file (relative to the study file) or a postgresql:// URI."""

    query: Text
    database: Text


class Arms(Strict):
    """The column that says who was treated, and its two values."""

    column: Text
    treated: Scalar
    control: Scalar


class Binary(Strict):
    """The column and the value that is the event; `better` says which direction is good, here and below."""

    kind: Literal["binary"] = "binary"
    column: Text
    event: Scalar
    better: Better

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.column,)


class Continuous(Strict):
    """A measured number."""

    kind: Literal["continuous"]
    column: Text
    better: Better

    @property
    def keys(self) -> tuple[str, ...]:
        return ()


class Count(Strict):
    """How many events each row had, and the column of the time it was watched; without it, 1 a row."""

    kind: Literal["count"]
    column: Text
    exposure: Text | None = None
    better: Better

    @property
    def keys(self) -> tuple[str, ...]:
        return ()


class TimeToEvent(Strict):
    """Whether the event came (`column` holds `event`; else the row is censored), and how long it took (`duration`)."""

    kind: Literal["time_to_event"]
    column: Text
    event: Scalar
    duration: Text
    better: Better

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.column, self.duration)


def _kind_of_outcome(value: Any) -> str:  # noqa: ANN401 - whatever the file holds
    return str(value.get("kind", "binary") if isinstance(value, dict) else getattr(value, "kind", "binary"))


def _kind_of_rows(value: Any) -> str:  # noqa: ANN401 - whatever the file holds
    return "query" if isinstance(value, dict | Query) else "path"


Outcome = Annotated[
    Annotated[Binary, Tag("binary")]
    | Annotated[Continuous, Tag("continuous")]
    | Annotated[Count, Tag("count")]
    | Annotated[TimeToEvent, Tag("time_to_event")],
    Discriminator(_kind_of_outcome),
]
Rows = Annotated[Annotated[Text, Tag("path")] | Annotated[Query, Tag("query")], Discriminator(_kind_of_rows)]


class Intervention(Strict):
    type: Text
    params: dict[str, Any] = {}


class Missing(Strict):
    """Rows without arm or outcome are in no cell. `values` are read as missing; above the share `at_most`, nothing
    of that site leaves."""

    values: tuple[Scalar, ...] = ()
    at_most: Annotated[float, Field(ge=0, le=1)] = 1.0


class Grid(Strict):
    """Send the log-likelihood of the effect on 8 evenly spaced points, on the effect's own scale; with `gradients` its
    derivatives there too, which the gate's `per_number` counts as eight numbers more."""

    start: Annotated[float, Field(alias="from")] = -3.0
    end: Annotated[float, Field(alias="to")] = 3.0
    gradients: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "Grid":
        if self.start >= self.end:
            raise ValueError("'from' must be below 'to'")
        return self


class Gate(Strict):
    """What is too small to leave. Cells of 1..min_cell-1 people are withheld with the packet they belong to; 0 is
    allowed. No single row may make up more than `max_share` of an arm's total of a continuous outcome or a count, and
    no single `contributor` (a column: physician, practice, patient) more than that of a cell's rows or of such a total;
    each number in a packet must rest on at least `per_number` records."""

    min_cell: Annotated[int, Field(ge=1)] = DEFAULT_MIN_CELL
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    contributor: Text | None = None
    per_number: Annotated[int, Field(ge=0)] = 10
    why: str = ""

    @model_validator(mode="after")
    def _explain(self) -> "Gate":
        if self.min_cell < DEFAULT_MIN_CELL and not self.why.strip():
            raise ValueError(f"min_cell below {DEFAULT_MIN_CELL} needs a reason: write it under 'why'")
        return self


class Noise(Strict):
    """Differential privacy of one record, by noise on the cells of a binary outcome: each release of a site costs
    `epsilon`, and what all of them cost together never exceeds `budget`. Cells are gated as the noise leaves them.

    What it covers is the packets' numbers. Which strata and periods there are, the context and that a site takes part
    are told as they are, and releases without noise of the same rows cost what no budget counts. Each distillation that
    is written, staged or sent is a release; its packets may be deposited again for nothing.
    """

    epsilon: Annotated[float, Field(gt=0, le=20)]
    budget: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _affords_one(self) -> "Noise":
        if self.epsilon > self.budget:
            raise ValueError("'epsilon' is what one release costs, and is above the 'budget' for all")
        return self


class Linter(Strict):
    """What to do with a packet that fewer than `tables` tables of counts can have made: give its numbers fewer digits
    until enough can (and refuse it where no rounding helps), refuse it, or send it, with a reason."""

    tables: Annotated[int, Field(ge=2, le=20)] = 2
    too_few: Literal["round", "refuse", "send"] = "round"
    why: str = ""

    @model_validator(mode="after")
    def _explain(self) -> "Linter":
        if self.too_few == "send" and not self.why.strip():
            raise ValueError("too_few: send needs a reason: write it under 'why'")
        return self
