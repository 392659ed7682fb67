"""Differential privacy, where a study asks for it: noise on a site's cells before anything is made of them."""

from dataclasses import dataclass, replace
from math import exp, sqrt

from pipelines.cohorts import Cohort
from pipelines.effects import MEASURES, Cells
from pipelines.study_fields import Noise
from qis_connectors.errors import QisError


class NoiseError(QisError):
    """The noise that the study asks for cannot be made here."""


@dataclass(frozen=True)
class NoisyCells(Cells):
    """Counts that noise was added to, and the variance of it in each."""

    variance: float

    def __add__(self, other: Cells) -> "NoisyCells":
        variance = self.variance + (other.variance if isinstance(other, NoisyCells) else 0.0)
        return NoisyCells(*super().__add__(other).counts(), variance)

    def undefined(self) -> str | None:
        """A count that noise took to nought or below says nothing of an empty cell, so nothing is made of it."""
        return None if min(self.counts()) > 0 else "noise has left a cell without people"

    def effect(self, measure: str) -> tuple[float, float]:
        """As of Cells; the standard error holds the noise.

        The delta method (Casella & Berger 2002, Statistical Inference, 5.5.4): independent noise of variance v in each
        count n_i adds v * sum of (d effect / d n_i)^2 to the sampling variance, the sum of n_i (d effect / d n_i)^2.
        """
        effect, stderr = MEASURES[measure](self)
        slopes = DERIVATIVES[measure](self)
        return effect, sqrt(stderr**2 + self.variance * sum(slope**2 for slope in slopes))


def hidden(found: list[Cohort], noise: Noise) -> tuple[list[Cohort], float]:
    """The cohorts of a binary outcome with noise in their cells, and the epsilon that OpenDP says this costs.

    It hides whether any one record is there. A record is in one cell of four, so that adding or removing it moves the
    counts by 1 in all. Each count gets discrete Laplace noise of scale 1 / epsilon (OpenDP's make_laplace, exact on
    whole numbers); its variance is 2 a / (1 - a)^2 with a = exp(-epsilon) (Ghosh, Roughgarden & Sundararajan 2012, SIAM
    J Comput 41:1673).
    NoiseError where OpenDP is not installed.
    """
    try:
        import opendp.prelude as dp  # optional: only where a study asks for noise
    except ImportError:
        raise NoiseError("noise needs OpenDP: pip install 'qis-connectors[privacy]'") from None
    dp.enable_features("contrib")
    epsilon = noise.epsilon
    mechanism = dp.m.make_laplace(dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int), scale=1 / epsilon)
    stays, hidden_ones = exp(-epsilon), []
    for cohort in found:
        assert isinstance(cohort.summary, Cells)
        a, b, c, d = mechanism([int(count) for count in cohort.summary.counts()])
        hidden_ones.append(replace(cohort, summary=NoisyCells(a, b, c, d, 2 * stays / (1 - stays) ** 2)))
    return hidden_ones, float(mechanism.map(1))  # type: ignore[no-untyped-call]  # OpenDP types it loosely


def _of_odds_ratio(cells: Cells) -> tuple[float, ...]:
    a, b, c, d = cells.counts()
    return 1 / a, -1 / b, -1 / c, 1 / d


def _of_risk_ratio(cells: Cells) -> tuple[float, ...]:
    a, _, c, _ = cells.counts()
    return 1 / a - 1 / cells.treated, -1 / cells.treated, 1 / cells.control - 1 / c, 1 / cells.control


def _of_risk_difference(cells: Cells) -> tuple[float, ...]:
    a, b, c, d = cells.counts()
    return b / cells.treated**2, -a / cells.treated**2, -d / cells.control**2, c / cells.control**2


DERIVATIVES = {
    "log_risk_ratio": _of_risk_ratio,
    "log_odds_ratio": _of_odds_ratio,
    "risk_difference": _of_risk_difference,
}
"""Of effects.MEASURES by each of the four counts."""
