"""The numbers of a packet, with as many digits as may be told."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, log10, sqrt

import numpy as np

from pipelines.effects import Summary
from pipelines.study import Study

POINTS = 8
"""Of a likelihood packet's grid."""
NEARBY = 1e-4
"""Of the grid's spacing: how far to either side derivatives look."""


@dataclass(frozen=True)
class Rounding:
    """Decimals of effect and standard error, significant digits of level and likelihood (None: as they are), and what
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
    numbers = _without_likelihood(summary, study, rounding)
    if study.likelihood is None:
        return numbers
    values = [_height(summary, study, at) for at in range(POINTS)]
    heights = tuple(_told(value - max(values), rounding) for value in values)
    return replace(numbers, likelihood=heights + tuple(_gradients(summary, study, rounding)))


def is_told_by(summary: Summary, study: Study, rounding: Rounding, told: Published) -> bool:
    """Whether `publish` would give `told`; the likelihood, which takes long, is looked at last."""
    if _without_likelihood(summary, study, rounding) != replace(told, likelihood=None):
        return False
    if told.likelihood is None:
        return True
    heights, gradients = told.likelihood[:POINTS], told.likelihood[POINTS:]
    top = heights.index(0.0)
    highest = _height(summary, study, top)
    # Others may be as high in single precision, never higher.
    same = all(_told(_height(summary, study, at) - highest, rounding) == value for at, value in enumerate(heights))
    return same and all(
        one == other for one, other in zip(_gradients(summary, study, rounding), gradients, strict=True)
    )


def _without_likelihood(summary: Summary, study: Study, rounding: Rounding) -> Published:
    effect, stderr = summary.effect(study.effect)
    level, records = summary.level, summary.records
    if rounding.digits is not None:
        step = 10.0**-rounding.digits
        stderr = ceil(sqrt(stderr**2 + step**2 / 12) / step - 1e-9) * step
        effect, level = round(effect, rounding.digits), float(f"{level:.{rounding.digits}g}")
        records = max(1, rounding.records * round(records / rounding.records))
    return Published(_single(effect), _single(stderr), _single(level), records)


def level_error(level: float, rounding: Rounding) -> float:
    """How far the level may be from what is published."""
    if rounding.digits is None or level == 0:
        return 1e-7 * abs(level)
    return 0.5 * 10.0 ** (floor(log10(abs(level))) - rounding.digits + 1) * (1 + 1e-6)


def _height(summary: Summary, study: Study, at: float) -> float:
    """Log-likelihood at a point of the grid, up to a constant: 0 is told of the likeliest point."""
    assert study.likelihood is not None
    start, end = study.likelihood.start, study.likelihood.end
    return summary.log_likelihood(study.effect, start + (end - start) * at / (POINTS - 1))


def _gradients(summary: Summary, study: Study, rounding: Rounding) -> Iterator[float]:
    """The log-likelihood's derivatives by the effect at the grid's points, if they are asked for: central differences,
    which lose at most the square of NEARBY, so that a control risk that was profiled out needs no derivative."""
    assert study.likelihood is not None
    spacing = (study.likelihood.end - study.likelihood.start) / (POINTS - 1)
    for at in range(POINTS) if study.likelihood.gradients else ():
        rise = _height(summary, study, at + NEARBY) - _height(summary, study, at - NEARBY)
        yield _told(rise / (2 * NEARBY * spacing), rounding)


def _told(height: float, rounding: Rounding) -> float:
    return _single(height if rounding.digits is None else float(f"{height:.{rounding.digits}g}"))


def _single(value: float) -> float:
    return float(np.float32(value))
