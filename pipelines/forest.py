"""The forest plot: what each site saw, and what all of them say together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist, median, quantiles
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.drawing import LEFT, PALETTE, RIGHT, RowPlot, save
from pipelines.scale import UNKNOWN, Scale, printable

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure

__all__ = ["PROBLEM_KEY", "Problem", "forest_plot", "problems", "rows_of", "save"]

PROBLEM_KEY = ("address", "metric_name", "intervention_type")
Problem = tuple[str, str, str]
"""The values of PROBLEM_KEY: what is pooled, and drawn, together."""

METHODS = {"REML": "Random effects, REML", "DL": "Random effects, DerSimonian-Laird", "FE": "Fixed effect"}
MAX_PACKETS = 80
Z95 = NormalDist().inv_cdf(0.975)


def problems(effects: pa.Table) -> list[Problem]:
    """Every problem in `effects`, sorted."""
    return sorted(set(zip(*(effects[key].to_pylist() for key in PROBLEM_KEY), strict=True)))


def rows_of(table: pa.Table, problem: Problem) -> pa.Table:
    """The rows of `table`, which has the columns PROBLEM_KEY, that belong to `problem`."""
    for key, value in zip(PROBLEM_KEY, problem, strict=True):
        table = table.filter(pc.equal(table[key], value))
    return table


def forest_plot(effects: pa.Table, pooled: pa.Table, robust: pa.Table) -> Figure:
    """One problem's forest plot; each argument holds the rows of that problem (`rows_of`), effects at least one.

    `effects`: node_id, packet_id, yi, vi (variance or NULL), ni; `pooled`: method, estimate, ci_*, pi_*, tau2;
    `robust`: median. A square's area is its weight by REML, 1 / (vi + tau2). Of more than MAX_PACKETS packets the
    ones with the most weight are drawn, and the plot says so. What lies far outside of the rest ends in an arrow.
    """
    from matplotlib.figure import Figure

    methods = {row["method"]: row for row in pooled.to_pylist()}
    methods = {method: methods[method] for method in METHODS if method in methods}
    reml = methods.get("REML", {})
    sites = _by_effect(effects, reml.get("tau2") or 0.0)
    pitch, size = (0.25, 9.0) if len(sites) <= 30 else (0.19, 7.5)
    rows = len(sites) + len(methods) + 4
    note = effects.num_rows > len(sites)
    bottom = 0.6 if note else 0.4
    height = rows * pitch + bottom + 0.4
    figure = Figure(figsize=(9.2, height), facecolor="white")
    scale = Scale.of(effects)
    plot = RowPlot(figure.add_axes((0.31, bottom / height, 0.44, rows * pitch / height)), scale, size)
    ends = [row[end] for row in methods.values() for end in ("ci_lb", "ci_ub")]
    plot.frame(*_window(sites, [*ends, reml.get("pi_lb"), reml.get("pi_ub")]), rows)

    address, _, intervention = (printable(effects[key][0].as_py()) for key in PROBLEM_KEY)
    style: dict[str, Any] = {"color": PALETTE["muted"], "parse_math": False}
    figure.text(0.01, 1 - 0.12 / height, f"{address}, {intervention}", size=size, va="top", **style)
    if note:
        text = f"{len(sites)} of {effects.num_rows:,} packets drawn: the ones with the most weight"
        figure.text(0.01, 0.1 / height, text, size=size, **style)

    plot.words(0, "Site", "n", f"{scale.title} [95 %]", bold=True)
    for y, site in enumerate(sites, 1):
        _draw_site(plot, y, site)
    y = len(sites) + 1
    plot.axes.axhline(y, xmin=LEFT, xmax=RIGHT, color=PALETTE["rule"], linewidth=0.8, clip_on=False)
    if reml:
        plot.axes.vlines(reml["estimate"], 0.6, y + 1, color=PALETTE["soft"], linewidth=0.9, zorder=0)
    for method, row in methods.items():
        y += 1
        plot.words(y, METHODS[method], "", scale.estimate(row["estimate"], row["ci_lb"], row["ci_ub"]))
        colour = PALETTE["soft" if method == "FE" else "accent"]
        plot.diamond(y, row["ci_lb"], row["estimate"], row["ci_ub"], colour)
    _draw_prediction(plot, y + 1, reml.get("pi_lb"), reml.get("pi_ub"))
    centre = robust["median"][0].as_py() if robust.num_rows else None
    plot.words(y + 2, "Median, every packet alike", "", scale.show(centre))
    if centre is not None:
        plot.point(y + 2, centre, "D", 5.5, PALETTE["warm"])
    return figure


@dataclass(frozen=True)
class _Site:
    packet_id: str
    name: str
    n: int | None
    effect: float
    low: float | None
    high: float | None
    weight: float
    """As a share of the largest weight; 0 without a variance."""


def _by_effect(effects: pa.Table, tau2: float) -> list[_Site]:
    rows = effects.to_pylist()
    weights = [1 / (row["vi"] + tau2) if row["vi"] else 0.0 for row in rows]
    heaviest = max(weights) or 1.0
    sites = []
    for weight, row in zip(weights, rows, strict=True):
        low, high = None, None
        if row["vi"]:
            reach = Z95 * sqrt(row["vi"])
            low, high = row["yi"] - reach, row["yi"] + reach
        sites.append(_Site(row["packet_id"], row["node_id"], row["ni"], row["yi"], low, high, weight / heaviest))
    kept = sorted(sites, key=lambda site: (-site.weight, site.packet_id))[:MAX_PACKETS]
    return sorted(kept, key=lambda site: (site.effect, site.name, site.packet_id))


def _window(sites: list[_Site], ends: Iterable[float | None]) -> tuple[float, float]:
    """From where to where the axis goes: over all there is, but one wild site does not squeeze the rest to a line."""
    effects = [site.effect for site in sites]
    bounds = [bound for site in sites for bound in (site.low, site.high)]
    shown = [0.0, *effects, *(bound for bound in (*bounds, *ends) if bound is not None)]
    first, _, third = quantiles(effects, n=4, method="inclusive") if len(effects) > 1 else effects * 3
    reaches = [site.high - site.effect for site in sites if site.high is not None]
    reach = 4 * max(third - first, median(reaches) if reaches else 0.0) or inf
    low, high = max(min(shown), min(0.0, first - reach)), min(max(shown), max(0.0, third + reach))
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def _draw_site(plot: RowPlot, y: int, site: _Site) -> None:
    n = UNKNOWN if site.n is None else f"{site.n:,}"
    plot.words(y, site.name, n, plot.scale.estimate(site.effect, site.low, site.high))
    if site.low is None or site.high is None:
        plot.point(y, site.effect, "o", 4.0, PALETTE["muted"], gid=f"site-{y}")
        return
    plot.whisker(y, site.low, site.high, PALETTE["ink"], 0.9)
    plot.point(y, site.effect, "s", max(2.0, 9 * sqrt(site.weight)), PALETTE["accent"], gid=f"site-{y}")


def _draw_prediction(plot: RowPlot, y: int, low: float | None, high: float | None) -> None:
    plot.words(y, "A new site, 95 % prediction", "", plot.scale.estimate(None, low, high))
    if low is not None and high is not None:
        plot.whisker(y, low, high, PALETTE["warm"], 2.2)
