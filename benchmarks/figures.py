"""How every benchmark states its figures: a table for people, or one JSON array with --json."""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value; `hold` is what it is held to, in words, and `ok` whether it is (None: shown, not held)."""

    figure: str
    value: float
    hold: str = ""
    ok: bool | None = None


def at_most(figure: str, value: float, limit: float) -> Figure:
    return Figure(figure, value, f"<= {limit:g}", value <= limit)


def at_least(figure: str, value: float, limit: float) -> Figure:
    return Figure(figure, value, f">= {limit:g}", value >= limit)


def main(title: str, measure: Callable[[bool], Iterable[Figure]]) -> None:
    """Run `measure(quick)` and print what it yields."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="one array of {figure, value, hold, ok}")
    parser.add_argument("--quick", action="store_true", help="end within 50 seconds")
    given = parser.parse_args()
    figures = list(measure(given.quick))
    if given.json:
        print(json.dumps([asdict(figure) for figure in figures]))  # noqa: T201
        return
    table = Table("figure", "value", "hold", "", title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for one in figures:
        table.add_row(one.figure, f"{one.value:,.4g}", one.hold, {True: "ok", False: "MISSED", None: ""}[one.ok])
    Console().print(table)
