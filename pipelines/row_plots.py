"""Two plots of one line for each packet: the answer without it, and the answer as it grew until it came."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.drawing import PALETTE, RowPlot
from pipelines.scale import Scale

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure

MAX_ROWS = 60
METHOD = "REML"


def leave_one_out_plot(scale: Scale, left_out: pa.Table, pooled: dict[str, Any]) -> Figure:
    """The REML answer without each packet in turn, the packet that moves it most on top.

    `left_out`: one problem's rows of sql/leave_one_out.sql, REML's at least one; `pooled`: its REML row of
    sql/pooled.sql. Of more than MAX_ROWS packets the ones that move it most are drawn.
    """
    rows = [row for row in left_out.to_pylist() if row["method"] == METHOD]
    rows.sort(key=lambda row: (-abs(row["estimate"] - pooled["estimate"]), row["left_out"], row["packet_id"]))
    lines = [(row["left_out"], f"{row['k']:,}", row) for row in rows[:MAX_ROWS]]
    note = f"{len(lines)} of {len(rows):,} packets drawn: the ones that move the answer most"
    return _rows_plot(scale, lines, pooled, ("Without", "k"), note if len(rows) > len(lines) else "", "left-out")


def cumulative_plot(scale: Scale, cumulative: pa.Table, pooled: dict[str, Any]) -> Figure:
    """The REML answer as it grew, packet by packet in the order of time, the first on top.

    `cumulative`: one problem's rows of sql/cumulative.sql, REML's at least one; `pooled`: its REML row of
    sql/pooled.sql. Of more than MAX_ROWS packets the last ones are drawn.
    """
    rows = [row for row in cumulative.to_pylist() if row["method"] == METHOD]
    rows.sort(key=lambda row: (row["timestamp_utc"], row["packet_id"]))
    lines = [(row["node_id"], day(row["timestamp_utc"]), row) for row in rows[-MAX_ROWS:]]
    note = f"the last {len(lines)} of {len(rows):,} packets drawn"
    return _rows_plot(scale, lines, pooled, ("And then", "came"), note if len(rows) > len(lines) else "", "until")


def _rows_plot(
    scale: Scale,
    lines: list[tuple[str, str, dict[str, Any]]],
    pooled: dict[str, Any],
    heads: tuple[str, str],
    note: str,
    gid: str,
) -> Figure:
    """`lines`: name, what stands to the right of it, and the answer's row."""
    from matplotlib.figure import Figure

    pitch, size = (0.25, 9.0) if len(lines) <= 30 else (0.19, 7.5)
    rows, bottom = len(lines) + 3, 0.6 if note else 0.4
    height = rows * pitch + bottom + 0.2
    figure = Figure(figsize=(9.2, height), facecolor="white")
    plot = RowPlot(figure.add_axes((0.31, bottom / height, 0.44, rows * pitch / height)), scale, size)
    plot.frame(*_window(lines, pooled), rows)
    if note:
        figure.text(0.01, 0.1 / height, note, size=size, color=PALETTE["muted"], parse_math=False)
    plot.words(0, *heads, f"{scale.title} [95 %]", bold=True)
    plot.axes.vlines(pooled["estimate"], 0.6, rows - 0.5, color=PALETTE["soft"], linewidth=0.9, zorder=0)
    for y, (name, k, row) in enumerate(lines, 1):
        plot.words(y, name, k, scale.estimate(row["estimate"], row["ci_lb"], row["ci_ub"]))
        plot.whisker(y, row["ci_lb"], row["ci_ub"], PALETTE["ink"], 0.9)
        plot.point(y, row["estimate"], "s", 5.0, PALETTE["accent"], gid=f"{gid}-{y}")
    y = len(lines) + 1
    plot.words(
        y, f"All {pooled['k']:,} packets", "", scale.estimate(pooled["estimate"], pooled["ci_lb"], pooled["ci_ub"])
    )
    plot.diamond(y, pooled["ci_lb"], pooled["estimate"], pooled["ci_ub"], PALETTE["accent"])
    return figure


def _window(lines: list[tuple[str, str, dict[str, Any]]], pooled: dict[str, Any]) -> tuple[float, float]:
    """Over every estimate and no effect; an interval wider than the rest ends in an arrow."""
    estimates = [0.0, pooled["ci_lb"], pooled["ci_ub"], *(row["estimate"] for _, _, row in lines)]
    reach = 2 * (pooled["ci_ub"] - pooled["ci_lb"])
    ends = [row["ci_lb"] for _, _, row in lines], [row["ci_ub"] for _, _, row in lines]
    low = max(min(*estimates, *ends[0]), min(estimates) - reach)
    high = min(max(*estimates, *ends[1]), max(estimates) + reach)
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def day(milliseconds: int) -> str:
    """The day of a packet's time; strangers may write any time."""
    try:
        return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"
