"""How every benchmark states its figures: a line each as they come, or one JSON array with --json."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`hold` is '>= x' or '<= x'; empty: shown beside, held to nothing. `behind` is what the value was made of."""

    figure: str
    value: float
    hold: str = ""
    behind: str = ""

    @property
    def ok(self) -> bool | None:
        if not self.hold:
            return None
        sign, bound = self.hold.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def main(title: str, measure: Callable[[bool], Iterable[Figure]]) -> None:
    """Run `measure(quick)` and print what it yields."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", action="store_true", help="one array of {figure, value, hold, ok} on stdout")
    parser.add_argument("--quick", action="store_true", help="end within 50 seconds")
    given = parser.parse_args()
    lines = sys.stderr if given.json else sys.stdout
    lines.write(f"{title}\n")
    rows = []
    for one in measure(given.quick):
        rows.append({"figure": one.figure, "value": one.value, "hold": one.hold, "ok": one.ok})
        mark = {True: "ok", False: "MISSED", None: ""}[one.ok]
        lines.write(f"  {one.figure:56} {one.value:10,.4g}  {one.hold:7} {mark:7} {one.behind}\n")
        lines.flush()
    if given.json:
        sys.stdout.write(json.dumps(rows) + "\n")
