"""The shares of the networks of an election, round by round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.drawing import PALETTE
from pipelines.row_plots import day
from pipelines.scale import printable

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure

_LINES = tuple((colour, style) for style in ("-", "--", ":") for colour in ("accent", "warm", "ink", "soft", "muted"))
_TICKS = 12


def shares_plot(shares: pa.Table) -> Figure:
    """A line for each network; `shares`: one problem's rows of sql/elections/shares.sql, at least one."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = shares.to_pylist()
    figure = Figure(figsize=(9.2, 3.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for number, network in enumerate(sorted({row["network"] for row in rows})):
        colour, style = _LINES[number % len(_LINES)]
        mine = [row for row in rows if row["network"] == network]
        # The first round begins with equal shares.
        line = [mine[0]["share_before"], *(row["share_after"] for row in mine)]
        axes.plot(
            range(len(line)), line, linestyle=style, color=PALETTE[colour], linewidth=1.4, label=printable(network)
        )
    days = sorted({row["round"]: day(row["timestamp_utc"]) for row in rows}.items())
    step = -(-len(days) // _TICKS)
    axes.set_xticks([number for number, _ in days[::step]], [day for _, day in days[::step]], size=8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Share", color=PALETTE["ink"])
    axes.legend(frameon=False, fontsize=8, labelcolor=PALETTE["ink"])
    axes.tick_params(color=PALETTE["muted"], labelcolor=PALETTE["ink"])
    axes.spines[["right", "top"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALETTE["muted"])
    return figure
