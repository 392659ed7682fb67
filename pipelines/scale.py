"""How effects are read by people: log ratios as ratios, every other metric as it is."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, floor, isfinite, log10, sqrt
from statistics import median

import pyarrow as pa

RATIOS = {
    "log_risk_ratio": "risk ratio",
    "log_odds_ratio": "odds ratio",
    "log_rate_ratio": "rate ratio",
    "log_hazard_ratio": "hazard ratio",
}
"""Metrics whose effects are natural logarithms of a ratio."""

UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class Scale:
    """The scale of one metric: its name, whether an effect is the logarithm of a ratio, and decimals to show."""

    name: str
    ratio: bool
    digits: int

    @classmethod
    def of(cls, effects: pa.Table) -> Scale:
        """The scale of one problem's effects (columns metric_name, yi, vi; at least one row)."""
        metric = effects["metric_name"][0].as_py()
        if metric in RATIOS:
            return cls(RATIOS[metric], ratio=True, digits=2)
        errors = [sqrt(vi) for vi in effects["vi"].to_pylist() if vi]
        typical = median(errors or [abs(yi) for yi in effects["yi"].to_pylist()])
        # Two significant digits of a typical standard error: more would be noise, fewer would hide the effect.
        return cls(printable(metric), ratio=False, digits=min(8, max(0, 1 - floor(log10(typical)))) if typical else 2)

    @property
    def title(self) -> str:
        return self.name.capitalize() if self.ratio else self.name

    @property
    def quantity(self) -> str:
        """What the ratio is of: risk, odds, rate, hazard."""
        return self.name.removesuffix(" ratio")

    def show(self, effect: float | None) -> str:
        """An effect on its own scale, as a ratio where it is the logarithm of one; UNKNOWN for none."""
        if effect is None or not isfinite(effect):
            return UNKNOWN
        if not self.ratio:
            return f"{effect:.{self.digits}f}" if abs(effect) < 1e6 else f"{effect:.3g}"
        if abs(effect) > 20:
            return f"e^{effect:.3g}"
        ratio = exp(effect)
        return f"{ratio:.{self.digits}f}" if 0.095 <= ratio < 1000 else f"{ratio:.2g}"

    def interval(self, low: float | None, high: float | None) -> str:
        return UNKNOWN if low is None or high is None else f"{self.show(low)} to {self.show(high)}"

    def estimate(self, effect: float | None, low: float | None, high: float | None) -> str:
        """`0.49 [0.34, 0.70]`, without what is not known of it."""
        interval = [] if low is None or high is None else [f"[{self.show(low)}, {self.show(high)}]"]
        return " ".join([*([] if effect is None else [self.show(effect)]), *interval]) or UNKNOWN


def printable(text: str) -> str:
    """A stranger's text without what neither page nor plot may show: control characters, direction overrides."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
