"""The effect measure of a count: how often the event came in each arm, a unit of the time it was watched."""

from dataclasses import dataclass
from math import exp, log, sqrt

EMPTY_ARM = 0.5
"""Added to the events of both arms where one has none (metafor's ``to="only0"`` for incidence rate ratios)."""


@dataclass(frozen=True)
class Events:
    """Rows of one arm: how many, how many of them with an event, events, time at risk, the most events of one row."""

    n: int = 0
    struck: int = 0
    events: int = 0
    exposure: float = 0.0
    largest: int = 0

    def __add__(self, other: "Events") -> "Events":
        return Events(
            self.n + other.n,
            self.struck + other.struck,
            self.events + other.events,
            self.exposure + other.exposure,
            max(self.largest, other.largest),
        )


@dataclass(frozen=True)
class Rates:
    """Both arms of a count."""

    treated: Events
    control: Events

    def __add__(self, other: "Rates") -> "Rates":
        return Rates(self.treated + other.treated, self.control + other.control)

    @property
    def records(self) -> int:
        return self.treated.n + self.control.n

    @property
    def level(self) -> float:
        return self.treated.events / self.treated.exposure

    @property
    def share(self) -> float:
        arms = (self.treated, self.control)
        return max((arm.largest / arm.events for arm in arms if arm.events), default=0.0)

    def people(self) -> dict[str, float]:
        arms = {"treated": self.treated, "control": self.control}
        return {f"{name} with an event": float(arm.struck) for name, arm in arms.items()} | {
            f"{name} without one": float(arm.n - arm.struck) for name, arm in arms.items()
        }

    def totals(self) -> dict[str, float]:
        return {"treated": self.treated.events, "control": self.control.events}

    def sums(self) -> tuple[float, ...]:
        return tuple(
            number for arm in (self.treated, self.control) for number in (arm.n, arm.struck, arm.events, arm.exposure)
        )

    def undefined(self) -> str | None:
        if not (self.treated.exposure > 0 and self.control.exposure > 0):
            return "an arm was watched for no time"
        return None if self.treated.events or self.control.events else "neither arm has an event"

    def effect(self, measure: str) -> tuple[float, float]:  # noqa: ARG002 - counts have one measure
        return log_rate_ratio(self)

    def log_likelihood(self, measure: str, effect: float) -> float:  # noqa: ARG002
        """Of the treated arm's events given all of them, a binomial that knows no base rate (Rothman, Greenland & Lash
        2008, ch. 14): no arm is corrected."""
        one, other = self.treated, self.control
        return one.events * effect - (one.events + other.events) * log(one.exposure * exp(effect) + other.exposure)


def log_rate_ratio(rates: Rates) -> tuple[float, float]:
    """ln of rate(treated) / rate(control) and its standard error, events Poisson (Rothman, Greenland & Lash 2008,
    ch. 14). An arm without events: EMPTY_ARM is added to both."""
    one, other = rates.treated, rates.control
    more = 0.0 if one.events and other.events else EMPTY_ARM
    x, y = one.events + more, other.events + more
    return log(x / one.exposure) - log(y / other.exposure), sqrt(1 / x + 1 / y)
