"""The numbers of a packet, with as many digits as may be told."""

from dataclasses import dataclass
from math import ceil, floor, log10, sqrt

import numpy as np

from pipelines.effects import Summary
from pipelines.study import Study

POINTS = 8
"""Of a likelihood packet's grid."""


@dataclass(frozen=True)
class Rounding:
    """Decimals of effect, standard error and likelihood, significant digits of the level (None: as they are), and what
    the number of records is a multiple of."""

    digits: int | None = None
    records: int = 1

    def __str__(self) -> str:
        if self.digits is None:
            return ""
        return f"rounded to {self.digits} digits" + (f", records to {self.records}" if self.records > 1 else "")


LADDER = (Rounding(4), Rounding(3), Rounding(3, 5), Rounding(2, 5), Rounding(2, 10), Rounding(1, 10))
"""Tried in turn: each says a little less."""


@dataclass(frozen=True)
class Published:
    """What a reader of the packet learns of the rows. All else in it is made of these or told of the site anyway."""

    effect: float
    stderr: float
    level: float
    records: int
    likelihood: tuple[float, ...] | None = None

    @property
    def numbers(self) -> int:
        return 4 + len(self.likelihood or ())


def publish(summary: Summary, study: Study, rounding: Rounding = Rounding()) -> Published:
    """The packet's numbers as the wire carries them, in single precision.

    A rounded standard error holds the rounding of the effect, a uniform error of variance step^2 / 12 (Sheppard 1898),
    and is rounded up, so that no packet claims to be surer than it is.
    """
    effect, stderr = summary.effect(study.effect)
    level, records, likelihood = summary.level, summary.records, _likelihood(summary, study)
    if rounding.digits is not None:
        step = 10.0**-rounding.digits
        stderr = ceil(sqrt(stderr**2 + step**2 / 12) / step - 1e-9) * step
        effect, level = round(effect, rounding.digits), float(f"{level:.{rounding.digits}g}")
        records = max(1, rounding.records * round(records / rounding.records))
        likelihood = likelihood and tuple(round(one, rounding.digits) for one in likelihood)
    return Published(
        _single(effect), _single(stderr), _single(level), records, likelihood and tuple(map(_single, likelihood))
    )


def level_error(level: float, rounding: Rounding) -> float:
    """How far the level may be from what is published."""
    if rounding.digits is None or level == 0:
        return 1e-7 * abs(level)
    return 0.5 * 10.0 ** (floor(log10(abs(level))) - rounding.digits + 1) * (1 + 1e-6)


def _likelihood(summary: Summary, study: Study) -> tuple[float, ...] | None:
    """Log-likelihood at the grid's points, 0 at the likeliest of them."""
    if study.likelihood is None:
        return None
    start, end = study.likelihood.start, study.likelihood.end
    grid = [start + (end - start) * at / (POINTS - 1) for at in range(POINTS)]
    values = [summary.log_likelihood(study.effect, effect) for effect in grid]
    return tuple(value - max(values) for value in values)


def _single(value: float) -> float:
    return float(np.float32(value))
