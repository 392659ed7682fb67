"""Effect measures of a continuous outcome: what two arms' counts, means and variances say."""

from dataclasses import dataclass
from math import exp, lgamma, sqrt


@dataclass(frozen=True)
class Moments:
    """Rows of one arm: how many, their mean, the sum of squared deviations from it, of absolute values, the largest."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        """Chan, Golub & LeVeque (1983), Am Stat 37:242, eq. 1.5."""
        n = self.n + other.n
        if not (self.n and other.n):
            return self if self.n else other
        apart = other.mean - self.mean
        return Moments(
            n,
            self.mean + apart * other.n / n,
            self.squares + other.squares + apart * apart * self.n * other.n / n,
            self.absolute + other.absolute,
            max(self.largest, other.largest),
        )

    @property
    def variance(self) -> float:
        return self.squares / (self.n - 1)


@dataclass(frozen=True)
class Means:
    """Both arms of a continuous outcome."""

    treated: Moments
    control: Moments

    def __add__(self, other: "Means") -> "Means":
        return Means(self.treated + other.treated, self.control + other.control)

    @property
    def records(self) -> int:
        return self.treated.n + self.control.n

    @property
    def level(self) -> float:
        return self.treated.mean

    @property
    def share(self) -> float:
        arms = (self.treated, self.control)
        return max((arm.largest / arm.absolute for arm in arms if arm.absolute), default=0.0)

    def people(self) -> dict[str, float]:
        return {"treated": self.treated.n, "control": self.control.n}

    def totals(self) -> dict[str, float]:
        return {"treated": self.treated.absolute, "control": self.control.absolute}

    def sums(self) -> tuple[float, ...]:
        return tuple(number for arm in (self.treated, self.control) for number in (arm.n, arm.mean, arm.squares))

    def undefined(self) -> str | None:
        if min(self.treated.n, self.control.n) < 2:
            return "an arm has fewer than two rows, so nothing says how much they vary"
        # A standard error of 0 would be an infinite weight.
        return None if self.treated.squares + self.control.squares > 0 else "the outcome does not vary in either arm"

    def effect(self, measure: str) -> tuple[float, float]:
        return mean_difference(self) if measure == "mean_difference" else standardised_mean_difference(self)

    def log_likelihood(self, measure: str, effect: float) -> float:
        """Of the difference in means, normal with its own standard error (Edwards 1972, ch. 5)."""
        estimate, stderr = self.effect(measure)
        return -(((effect - estimate) / stderr) ** 2) / 2


def mean_difference(means: Means) -> tuple[float, float]:
    """mean(treated) - mean(control) and its standard error, variances not pooled (Welch 1938)."""
    one, other = means.treated, means.control
    return one.mean - other.mean, sqrt(one.variance / one.n + other.variance / other.n)


def standardised_mean_difference(means: Means) -> tuple[float, float]:
    """Hedges' g and its large-sample standard error.

    g = J d, d over the pooled standard deviation, J exact by gamma functions (Hedges 1981, eq. 6e); variance
    1/n1 + 1/n2 + g^2 / (2 (n1 + n2)) (Hedges & Olkin 1985, ch. 5 eq. 15; metafor's SMD).
    """
    one, other = means.treated, means.control
    free = one.n + other.n - 2
    pooled = sqrt((one.squares + other.squares) / free)
    correction = exp(lgamma(free / 2) - lgamma((free - 1) / 2)) / sqrt(free / 2) if free > 1 else 0.0
    g = correction * (one.mean - other.mean) / pooled
    return g, sqrt(1 / one.n + 1 / other.n + g * g / (2 * (one.n + other.n)))
