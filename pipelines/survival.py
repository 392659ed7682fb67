"""The effect measure of a time to an event: how much sooner it came in one arm, from the order of the times alone."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log, sqrt


@dataclass(frozen=True)
class AtTime:
    """What ended at one time: events and censored rows, of the treated and of the controls."""

    time: float
    treated_event: int = 0
    treated_rest: int = 0
    control_event: int = 0
    control_rest: int = 0


@dataclass(frozen=True)
class Survival:
    """Both arms, by time, earliest first."""

    times: tuple[AtTime, ...]

    def __add__(self, other: "Survival") -> "Survival":
        return Survival.of((*self.times, *other.times))

    @classmethod
    def of(cls, ends: tuple[AtTime, ...]) -> "Survival":
        """Those of equal times are added up."""
        counts: dict[float, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for end in ends:
            for at, n in enumerate((end.treated_event, end.treated_rest, end.control_event, end.control_rest)):
                counts[end.time][at] += n
        return cls(tuple(AtTime(time, *counts[time]) for time in sorted(counts)))

    @property
    def records(self) -> int:
        return int(sum(self.sums()))

    @property
    def level(self) -> float:
        """Events of the treated a unit of their time."""
        time = sum(end.time * (end.treated_event + end.treated_rest) for end in self.times)
        return sum(end.treated_event for end in self.times) / time

    @property
    def share(self) -> float:
        return 0.0

    def people(self) -> dict[str, float]:
        names = ("treated with the event", "treated without it", "control with the event", "control without it")
        return dict(zip(names, self.sums(), strict=True))

    def totals(self) -> dict[str, float]:
        return {}

    def sums(self) -> tuple[float, ...]:
        rows = [(end.treated_event, end.treated_rest, end.control_event, end.control_rest) for end in self.times]
        return tuple(sum(column) for column in zip(*rows, strict=True))

    def undefined(self) -> str | None:
        if not any(end.time * (end.treated_event + end.treated_rest) for end in self.times):
            return "the treated were watched for no time"
        return None if log_rank(self)[1] > 0 else "no event came while both arms were still watched"

    def effect(self, measure: str) -> tuple[float, float]:  # noqa: ARG002 - times have one measure
        return log_hazard_ratio(self)

    def log_likelihood(self, measure: str, effect: float) -> float:  # noqa: ARG002
        """Cox's partial likelihood of the one covariate, ties as Breslow (1974), Biometrics 30:89."""
        return sum(
            one * effect - (one + other) * log(treated * exp(effect) + control)
            for one, other, treated, control in _risk_sets(self)
        )


def log_rank(survival: Survival) -> tuple[float, float]:
    """Observed minus expected events of the treated, and the variance, hypergeometric (Mantel 1966)."""
    excess = variance = 0.0
    for one, other, treated, control in _risk_sets(survival):
        d, n = one + other, treated + control
        excess += one - d * treated / n
        if n > 1:
            variance += d * (treated / n) * (control / n) * (n - d) / (n - 1)
    return excess, variance


def log_hazard_ratio(survival: Survival) -> tuple[float, float]:
    """Peto's one-step estimate (O - E) / V and its standard error 1 / sqrt V (Yusuf et al. 1985, Prog Cardiovasc Dis
    27:335). An arm without events needs no correction."""
    excess, variance = log_rank(survival)
    return excess / variance, 1 / sqrt(variance)


def _risk_sets(survival: Survival) -> Iterator[tuple[int, int, int, int]]:
    """At each time with an event: events of the treated and of the controls, and how many of each were at risk."""
    a, b, c, d = (int(n) for n in survival.sums())
    treated, control = a + b, c + d
    for end in survival.times:
        if end.treated_event or end.control_event:
            yield end.treated_event, end.control_event, treated, control
        treated -= end.treated_event + end.treated_rest
        control -= end.control_event + end.control_rest
