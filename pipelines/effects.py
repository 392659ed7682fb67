"""Effect measures of a 2x2 table, each with the standard error it is pooled by."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt


@dataclass(frozen=True)
class Cells:
    """Counts of people: treated with and without the event, control with and without it."""

    treated_event: float
    treated_rest: float
    control_event: float
    control_rest: float

    @property
    def treated(self) -> float:
        return self.treated_event + self.treated_rest

    @property
    def control(self) -> float:
        return self.control_event + self.control_rest

    def counts(self) -> tuple[float, float, float, float]:
        return self.treated_event, self.treated_rest, self.control_event, self.control_rest


def log_risk_ratio(cells: Cells) -> tuple[float, float]:
    """ln of risk(treated) / risk(control) and its standard error (Rothman, Greenland & Lash 2008, ch. 14)."""
    effect = log(cells.treated_event / cells.treated) - log(cells.control_event / cells.control)
    variance = 1 / cells.treated_event - 1 / cells.treated + 1 / cells.control_event - 1 / cells.control
    return effect, sqrt(variance)


def log_odds_ratio(cells: Cells) -> tuple[float, float]:
    """ln of odds(treated) / odds(control) and its standard error (Woolf 1955)."""
    a, b, c, d = cells.counts()
    return log(a * d / (b * c)), sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def risk_difference(cells: Cells) -> tuple[float, float]:
    """risk(treated) - risk(control) and its standard error (Rothman, Greenland & Lash 2008, ch. 14)."""
    a, b, c, d = cells.counts()
    variance = a * b / cells.treated**3 + c * d / cells.control**3
    return a / cells.treated - c / cells.control, sqrt(variance)


MEASURES: dict[str, Callable[[Cells], tuple[float, float]]] = {
    "log_risk_ratio": log_risk_ratio,
    "log_odds_ratio": log_odds_ratio,
    "risk_difference": risk_difference,
}


def correct_empty_cells(cells: Cells) -> Cells:
    """The cells, with 1/2 added to all four where one is 0 (Haldane-Anscombe; metafor's ``to="only0"``).

    An empty cell makes a log ratio infinite, or a standard error 0, which is an infinite weight.
    """
    if all(cells.counts()):
        return cells
    return Cells(*(count + 0.5 for count in cells.counts()))
