"""An attack on one's own packet: which tables of counts can have made these numbers? One is the table itself."""

from dataclasses import dataclass
from math import ceil, exp

import numpy as np
import numpy.typing as npt

from pipelines.effects import Cells, Summary
from pipelines.noise import NoisyCells
from pipelines.publishing import LADDER, Published, Rounding, is_told_by, level_error, publish
from pipelines.rates import Rates
from pipelines.study import Study

ENOUGH = 20
"""Tables counted at most: nobody needs to know whether it is 20 or 200."""
SIZES = 20_000
"""Sizes of the treated arm tried to either side of the true one: with more people not all tables are, so that at
least as many fit as are found."""
TRIES = 300
"""Tables whose likelihood is held against the packet's: at least as many fit as are found."""
SINGLE = 1.2e-7
"""Single precision's step, relative: twice as far as rounding to it can be off."""
MOST = 200
"""Counts tried of one arm, where rounding leaves more open."""
PAIRS = 200_000
"""Candidates looked at in one go."""

Known = tuple[Study, Rounding, Published]
"""Numbers that were sent, the study they were of and how they were rounded."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """What is sent, and how many tables can have made it; None where means, times or noise leave it open."""

    published: Published
    rounding: Rounding
    tables: int | None
    refused: str | None = None

    def __str__(self) -> str:
        fit = {None: "any table fits", 1: "1 table fits"}.get(self.tables, f"{self.tables} tables fit")
        fit = f"{ENOUGH} tables or more fit" if self.tables == ENOUGH else fit
        return "; ".join(part for part in (fit, str(self.rounding), self.refused) if part)


def lint(summary: Summary, study: Study, earlier: tuple[Known, ...] = ()) -> Finding:
    """The numbers to send, attacked: with fewer digits where the study says so and too few tables fit, or refused.

    The attacker knows all that is published, how it was rounded, the study and its gate; and what was sent of the same
    table `earlier`, which counts against tables of a binary outcome.
    """
    for rounding in (Rounding(), *LADDER):
        published = publish(summary, study, rounding)
        tables = _attack(summary, published, study, rounding, earlier)
        if tables is None or tables >= study.linter.tables or study.linter.too_few == "send":
            return Finding(published, rounding, tables)
        if study.linter.too_few == "refuse":
            return Finding(published, rounding, tables, f"at least {study.linter.tables} must fit")
    return Finding(published, rounding, tables, "no rounding hides the table")


def _attack(
    summary: Summary, published: Published, study: Study, rounding: Rounding, earlier: tuple[Known, ...]
) -> int | None:
    if isinstance(summary, NoisyCells):
        return None
    if isinstance(summary, Cells):
        known = ((study, rounding, published), *earlier)
        return _tables(published, study, rounding, int(summary.treated), known)
    return _event_pairs(published, study, rounding) if isinstance(summary, Rates) else None


def _tables(published: Published, study: Study, rounding: Rounding, near: int, known: tuple[Known, ...]) -> int:
    """How many 2x2 tables give exactly the numbers that are `known`; ENOUGH if as many.

    For each size of the treated arm (those near the true one first, which only saves time) the level leaves a few
    counts of events there, and the effect a few in the other arm; they are then published and compared.
    """
    slack = rounding.records // 2
    fitting: set[tuple[float, ...]] = set()
    tried = 0
    for n in range(max(2, published.records - slack), published.records + slack + 1):
        if rounding.records * round(n / rounding.records) != published.records:
            continue
        sizes = np.arange(max(1, near - SIZES), min(n, near + SIZES), dtype=np.int64)
        sizes = sizes[np.argsort(np.abs(sizes - near), kind="stable")]
        error = level_error(published.level, rounding)
        width = min(2 * error * n + 1, MOST) * (min(2 * (_step(rounding) + error) * n, MOST) + 4)
        block = max(1, int(PAIRS / width))
        for first in range(0, len(sizes), block):
            a, b, c, d = _candidates(sizes[first : first + block], n, published, study, rounding)
            for table in zip(a.tolist(), b.tolist(), c.tolist(), d.tolist(), strict=True):
                if all(is_told_by(Cells(*table), *one) for one in known):
                    fitting.add(table)
                tried += 1
                if len(fitting) == ENOUGH or (study.likelihood and tried == TRIES):
                    return len(fitting)
    return len(fitting)


def _candidates(n1: Ints, n: int, published: Published, study: Study, rounding: Rounding) -> tuple[Ints, ...]:
    """Tables with `n1` treated that pass the gate and nearly fit: all that fit are among them."""
    error = level_error(published.level, rounding)
    n1, a = _spread(n1, np.ceil((published.level - error) * n1 - 1e-9), np.floor((published.level + error) * n1 + 1e-9))
    if len(n1) == 0:
        return (n1,) * 4
    n2, step = n - n1, _step(rounding)
    half = step / 2 * (1 + 1e-6) + SINGLE * abs(published.effect) + 1e-12
    # Where a cell is empty, 1/2 has been added to all four before the effect was taken.
    more = np.where((a == 0) | (a == n1), 0.5, 0.0)
    risk = (a + more) / (n1 + 2 * more)
    low, high = (
        _control_risk(risk, published.effect + by, study.effect) * (n2 + 2 * more) - more for by in (half, -half)
    )
    low, high = np.clip(np.ceil(low - 1e-6), 0, n2), np.clip(np.floor(high + 1e-6), 0, n2)
    at, c = _spread(np.arange(len(n1)), low, high)
    inner = np.flatnonzero(more == 0)  # there the other arm alone may have the empty cell
    at = np.concatenate([at, inner, inner])
    c = np.concatenate([c, np.zeros(len(inner), np.int64), n2[inner]])
    n1, n2, a = n1[at], n2[at], a[at]
    cells = [a, n1 - a, c, n2 - c]
    allowed = np.all([(cell == 0) | (cell >= study.gate.min_cell) for cell in cells], axis=0)
    cells = [cell[allowed] for cell in cells]
    effect, stderr = _effects(cells, study.effect)
    close = np.abs(effect - published.effect) <= half
    close &= np.abs(stderr - published.stderr) <= 1.5 * step + SINGLE * published.stderr
    return tuple(cell[close] for cell in cells)


def _step(rounding: Rounding) -> float:
    return 0.0 if rounding.digits is None else 10.0**-rounding.digits


def _spread(keys: Ints, low: Floats, high: Floats) -> tuple[Ints, Ints]:
    """Every whole number from `low` to `high` with its key; of more than MOST as many, evenly spaced."""
    first = low.astype(np.int64)
    all_ = np.maximum(high.astype(np.int64) - first + 1, 0)
    many = np.minimum(all_, MOST)
    at = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
    return np.repeat(keys, many), np.repeat(first, many) + at * np.repeat(all_, many) // np.repeat(many, many)


def _control_risk(risk: Floats, effect: float, measure: str) -> Floats:
    if measure == "risk_difference":
        return risk - effect
    if measure == "log_risk_ratio":
        return risk / exp(effect)
    odds = risk / np.maximum(1 - risk, 1e-300) / exp(effect)
    return odds / (1 + odds)


def _effects(cells: list[Ints], measure: str) -> tuple[Floats, Floats]:
    """effects.MEASURES over arrays, for the first sieve alone: what passes is published and compared exactly."""
    more = np.where(np.any([cell == 0 for cell in cells], axis=0), 0.5, 0.0)
    a, b, c, d = (cell + more for cell in cells)
    if measure == "risk_difference":
        return a / (a + b) - c / (c + d), np.sqrt(a * b / (a + b) ** 3 + c * d / (c + d) ** 3)
    if measure == "log_risk_ratio":
        return np.log(a * (c + d) / (c * (a + b))), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    return np.log(a * d / (b * c)), np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)


def _event_pairs(published: Published, study: Study, rounding: Rounding) -> int:
    """How many pairs of event counts give the published standard error; where each row was watched for 1, also the
    level and the effect for whole numbers of rows in both arms."""
    step, tolerance = _step(rounding), 2e-7 * published.stderr
    low, high = (max(published.stderr - 1.5 * step - tolerance, 1e-6)) ** -2, (published.stderr + tolerance) ** -2
    # 1/x + 1/y = se^2: the smaller of both is at most 2 / se^2; an empty arm is 1/2, the other then anything above.
    x = np.arange(ceil(high), min(2 * low, 1e6) + 1)
    rest_low, rest_high = 1 / low - 1 / x, 1 / high - 1 / x
    y_low = np.ceil(1 / np.maximum(rest_high, 1e-12) - 1e-9)
    y_high = np.where(rest_low > 0, np.floor(1 / np.maximum(rest_low, 1e-12) + 1e-9), 1e7)
    some, other = _spread(x.astype(np.int64), np.maximum(y_low, x), np.maximum(y_high, x - 1))
    x, y = np.concatenate([some, other[some != other]]), np.concatenate([other, some[some != other]])
    if isinstance(getattr(study.outcome, "exposure", None), str):
        return min(len(x), ENOUGH)
    error = level_error(published.level, rounding)
    fewest, most = x / (published.level + error), x / max(published.level - error, 1e-12)
    at, n1 = _spread(np.arange(len(x)), np.ceil(fewest - 1e-9), np.floor(most + 1e-9))
    x, y, slack = x[at], y[at], rounding.records // 2
    fitting = 0
    for n in range(published.records - slack, published.records + slack + 1):
        n2 = n - n1
        effect = np.log(x / n1) - np.log(y / np.maximum(n2, 1))
        fitting += int(np.sum((n2 > 0) & (np.abs(effect - published.effect) <= step / 2 + 1e-6)))
    return min(fitting, ENOUGH)
