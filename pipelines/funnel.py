"""The funnel plot: do small sites see what large ones see?"""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.drawing import PALETTE, ratio_ticks
from pipelines.scale import Scale

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure

MAX_POINTS = 2000
Z95 = NormalDist().inv_cdf(0.975)


def funnel_plot(scale: Scale, effects: pa.Table, pooled: dict[str, Any]) -> Figure:
    """Each packet's effect against its standard error, the surest on top, around the REML answer.

    `effects`: one problem's rows of sql/effects.sql, at least one with a variance; `pooled`: its REML row of
    sql/pooled.sql. The funnel holds 95 % of packets that differ by chance alone, the paler one also by tau2 (Light &
    Pillemer 1984, Summing Up). Of more than MAX_POINTS packets every n-th by certainty is drawn.
    """
    from matplotlib.figure import Figure

    points = sorted((sqrt(row["vi"]), row["yi"]) for row in effects.to_pylist() if row["vi"])
    step = -(-len(points) // MAX_POINTS)
    shown = points[::step]
    deepest = 1.06 * shown[-1][0]
    figure = Figure(figsize=(9.2, 4.4), facecolor="white")
    axes = figure.add_axes((0.09, 0.13, 0.88, 0.84))
    centre, tau2 = pooled["estimate"], pooled["tau2"] or 0.0
    depths = [deepest * at / 60 for at in range(61)]
    for extra, colour in ((tau2, PALETTE["funnel"]), (0.0, PALETTE["rule"])):
        reach = [Z95 * sqrt(depth * depth + extra) for depth in depths]
        axes.fill_betweenx(
            depths,
            [centre - one for one in reach],
            [centre + one for one in reach],
            color=colour,
            linewidth=0,
            zorder=0,
        )
    axes.axvline(centre, color=PALETTE["accent"], linewidth=1.1, zorder=1)
    low, high = _window(shown, centre, Z95 * sqrt(deepest * deepest + tau2))
    if low < 0 < high:
        axes.axvline(0, color=PALETTE["muted"], linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
    for at, (stderr, effect) in enumerate(shown):
        marker = "<" if effect < low else ">" if effect > high else "o"
        size = 3.0 if len(shown) > 200 else 5.0
        (mark,) = axes.plot(
            min(max(effect, low), high), stderr, marker, markersize=size, color=PALETTE["ink"], markeredgewidth=0,
            clip_on=False, zorder=3,
        )  # fmt: skip
        mark.set_gid(f"funnel-{at}")
    axes.set_xlim(low, high)
    axes.set_ylim(deepest, 0)
    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALETTE["muted"])
    axes.tick_params(labelsize=9, color=PALETTE["muted"], labelcolor=PALETTE["ink"])
    axes.set_ylabel("Standard error", size=9, color=PALETTE["ink"])
    axes.set_xlabel(scale.title, size=9, color=PALETTE["ink"], parse_math=False)
    if scale.ratio and max(-low, high) < 20:
        ticks = ratio_ticks(low, high)
        axes.set_xticks([log(tick) for tick in ticks], [f"{exp(log(tick)):g}" for tick in ticks])
    return figure


def _window(points: list[tuple[float, float]], centre: float, reach: float) -> tuple[float, float]:
    """The funnel's mouth and a little more; what lies beyond ends in an arrow."""
    effects = [effect for _, effect in points]
    reach = reach or 1.0
    low = max(min(*effects, centre - reach), centre - 2.5 * reach)
    high = min(max(*effects, centre + reach), centre + 2.5 * reach)
    pad = 0.04 * (high - low)
    return low - pad, high + pad
