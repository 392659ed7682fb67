"""What the packets of each month say by themselves, and whether the months differ: drift, seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.drawing import PALETTE
from pipelines.forest import Problem, rows_of
from pipelines.scale import Scale
from pipelines.synthesize import synthesize
from qis_connectors.delta import PacketTable

METHOD = "REML"

if TYPE_CHECKING:  # see pipelines.drawing
    from matplotlib.figure import Figure


def monthly_answer(table: Path, problem: Problem) -> pa.Table:
    """sql/subgroups.sql over the packet table at `table` with the month, its training phase, for the only context.

    `value` is the month; `q_between` and `differ` say how far the months lie apart and whether by more than chance.
    """
    with duckdb.connect() as connection:
        packets = PacketTable(table).relation(connection)
        packets.project("* REPLACE (json_object('month', training_phase)::VARCHAR AS context)").create_view("packets")
        return rows_of(synthesize(connection, ["subgroups"])["subgroups"], problem)


def drift_plot(months: pa.Table) -> Figure:
    """The pooled answer of each month with its normal 95 % interval; `months` is a `monthly_answer`."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = [row for row in months.to_pylist() if row["method"] == METHOD]
    scale = Scale.of(months.append_column("yi", months["estimate"]).append_column("vi", pc.power(months["se"], 2)))
    figure = Figure(figsize=(9.2, 3.6), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.axhline(0, color=PALETTE["muted"], linewidth=0.9)
    axes.plot(places, [row["estimate"] for row in rows], "s-", color=PALETTE["accent"], markersize=5, linewidth=1)
    axes.vlines(
        places, [row["ci_lb"] for row in rows], [row["ci_ub"] for row in rows], color=PALETTE["ink"], linewidth=1
    )
    axes.set_xticks(places, [f"{row['value']}\nk = {row['k']}" for row in rows], size=8)
    axes.yaxis.set_major_formatter(lambda value, _: scale.show(value))
    axes.set_ylabel(f"{scale.title} [95 %]", color=PALETTE["ink"])
    axes.spines[["right", "top"]].set_visible(False)
    return figure
