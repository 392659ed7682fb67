"""Who is behind a cell: with most of its rows from one physician, practice or patient a packet tells of that one."""

from functools import reduce
from operator import or_
from typing import Any

import narwhals as nw

CONTRIBUTOR = "qis contributor"
"""The column of groups that holds a contributor who may have too much of a cell; None: all others together."""
NOBODY = ""
"""Rows that name no contributor are held to be one contributor's: they may be."""
ROUNDING = 1e-9
"""Engines add up in orders of their own."""


def with_heavy_contributors(
    frame: nw.LazyFrame[Any], column: str, cells: list[str], weights: list[nw.Expr], share: float
) -> nw.LazyFrame[Any]:
    """The frame and CONTRIBUTOR: those who have `share` of the sum of one of the `weights` (of a row) anywhere.

    `cells` are columns whose distinct values tell the study's cells apart, or more than these. Who has more than
    `share` of a union of disjoint parts has more than that of one part, as the mediant of fractions lies between them:
    nobody else need be told apart, however cells are merged, and what is counted stays small.
    """
    named = [weight.cast(nw.Float64).fill_null(0.0).alias(f"qis weight {at}") for at, weight in enumerate(weights)]
    sums = [nw.col(f"qis weight {at}") for at in range(len(weights))]
    frame = frame.with_columns(nw.col(column).cast(nw.String).fill_null(NOBODY).alias(CONTRIBUTOR), *named)
    each = frame.group_by(*cells, CONTRIBUTOR).agg(*(one.sum() for one in sums))
    much = share * (1 - ROUNDING)
    heavy = each.filter(reduce(or_, ((one > 0) & (one >= much * one.sum().over(*cells)) for one in sums)))
    names = heavy.select(CONTRIBUTOR).unique().with_columns(nw.lit(True).alias("qis heavy"))
    joined = frame.join(names, on=CONTRIBUTOR, how="left")
    return joined.with_columns(nw.when(nw.col("qis heavy")).then(nw.col(CONTRIBUTOR)).alias(CONTRIBUTOR))
