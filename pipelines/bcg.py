"""The thirteen BCG vaccine trials, each one a site whose participants' rows are rebuilt from its published counts."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipelines.effects import Cells
from pipelines.files import replacing
from pipelines.shipped import shipped


@dataclass(frozen=True)
class Trial:
    site: str
    year: int
    latitude: int
    allocation: str
    cells: Cells


def trials() -> dict[str, Trial]:
    """Site name -> trial, in the order of data/bcg_trials.csv."""
    with shipped("data/bcg_trials.csv").open(newline="", encoding="utf-8") as file:
        found = [_trial(row) for row in csv.DictReader(file)]
    return {trial.site: trial for trial in found}


def _trial(row: dict[str, str]) -> Trial:
    return Trial(
        site=re.sub(r"[^a-z0-9]+", "-", f"{row['study']} {row['year']}".lower()),
        year=int(row["year"]),
        latitude=int(row["absolute_latitude"]),
        allocation=row["allocation"],
        cells=Cells(*(int(row[name]) for name in ("vaccinated_tb", "vaccinated_no_tb", "control_tb", "control_no_tb"))),
    )


def write_rows(trial: Trial, path: Path) -> int:
    """One row a participant: vaccinated, tuberculosis (bool), latitude (degrees), allocation, year. Returns how many.

    The order is shuffled, the same way at every call: it says nothing, as with rows of people who came one by one.
    """
    arms = ((True, True), (True, False), (False, True), (False, False))
    frame = pl.concat(
        pl.select(
            vaccinated=pl.repeat(vaccinated, int(count)),
            tuberculosis=pl.repeat(tuberculosis, int(count)),
            latitude=pl.lit(trial.latitude),
            allocation=pl.lit(trial.allocation),
            year=pl.lit(trial.year),
        )
        for (vaccinated, tuberculosis), count in zip(arms, trial.cells.counts(), strict=True)
    ).sample(fraction=1, shuffle=True, seed=trial.year)
    with replacing(path) as draft:
        frame.write_parquet(draft)
    return frame.height
