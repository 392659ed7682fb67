"""Effect measures of a 2x2 table, each with the standard error it is pooled by.

A binary outcome is boiled down to Cells, a continuous one to Means, a count to Rates, a time to an event to Survival:
all four answer the same questions, which Summary lists.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Protocol, Self


class Summary(Protocol):
    """Two arms, boiled down; those of disjoint rows add up."""

    @property
    def records(self) -> int:
        """How many rows it stands on."""

    @property
    def level(self) -> float:
        """The level reached in the treated arm: a risk, a mean, events a unit of time."""

    @property
    def share(self) -> float:
        """The largest part one row has of an arm's total, 0..1."""

    def people(self) -> dict[str, float]:
        """Who was counted, and how many: what the gate looks at."""

    def totals(self) -> dict[str, float]:
        """What each arm's level is made of beside the people: sums to which one contributor may give the most."""

    def undefined(self) -> str | None:
        """Why there is no effect; None if there is one."""

    def effect(self, measure: str) -> tuple[float, float]:
        """The effect and its standard error, which is above 0."""

    def log_likelihood(self, measure: str, effect: float) -> float:
        """Of the rows, up to a constant, were `effect` the true one."""

    def sums(self) -> tuple[float, ...]:
        """The numbers that added up."""

    def __add__(self, other: Self) -> Self: ...


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

    sums = counts

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    @property
    def records(self) -> int:
        return int(self.treated + self.control)

    @property
    def level(self) -> float:
        return self.treated_event / self.treated

    @property
    def share(self) -> float:
        return 0.0

    def people(self) -> dict[str, float]:
        return dict(zip(CELLS, self.counts(), strict=True))

    def totals(self) -> dict[str, float]:
        return {}

    def undefined(self) -> str | None:
        """Without an event in either arm a ratio is not defined (Cochrane Handbook, 10.4.4.2)."""
        return None if self.treated_event or self.control_event else "nobody in either arm has the event"

    def effect(self, measure: str) -> tuple[float, float]:
        return MEASURES[measure](correct_empty_cells(self))

    def log_likelihood(self, measure: str, effect: float) -> float:
        """Two binomials, the control risk profiled out (Barndorff-Nielsen & Cox 1994, 3.4): no cell is corrected."""
        low, high, treated_risk = RISKS[measure](effect)
        return _highest(lambda risk: self._log_likelihood(treated_risk(risk), risk), low, high)

    def _log_likelihood(self, treated_risk: float, control_risk: float) -> float:
        terms = zip(self.counts(), (treated_risk, 1 - treated_risk, control_risk, 1 - control_risk), strict=True)
        return sum(count * log(max(p, TINY)) for count, p in terms if count)


CELLS = ("treated with the event", "treated without it", "control with the event", "control without it")
TINY = 1e-300
"""Stands for a probability of 0 at the ends of the search, so that its log is finite."""


def _highest(concave: Callable[[float], float], low: float, high: float) -> float:
    """The maximum of a function with one peak, by golden section; 60 steps narrow it to 1e-12 of the range."""
    golden = (sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = concave(left), concave(right)
    for _ in range(60):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = concave(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = concave(left)
    return max(at_left, at_right)


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


def _odds_times(risk: float, factor: float) -> float:
    return risk * factor / (1 - risk + risk * factor)


# At an effect: the control risks it allows, lowest and highest, and the treated arm's risk at each.
RISKS: dict[str, Callable[[float], tuple[float, float, Callable[[float], float]]]] = {
    "log_risk_ratio": lambda effect: (0.0, min(1.0, exp(-effect)), lambda risk: risk * exp(effect)),
    "log_odds_ratio": lambda effect: (0.0, 1.0, lambda risk: _odds_times(risk, exp(effect))),
    "risk_difference": lambda effect: (max(0.0, -effect), min(1.0, 1 - effect), lambda risk: risk + effect),
}


def correct_empty_cells(cells: Cells) -> Cells:
    """The cells, with 1/2 added to all four where one is 0 (Haldane-Anscombe; metafor's ``to="only0"``).

    An empty cell makes a log ratio infinite, or a standard error 0, which is an infinite weight.
    """
    if all(cells.counts()):
        return cells
    return Cells(*(count + 0.5 for count in cells.counts()))
