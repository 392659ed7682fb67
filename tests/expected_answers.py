"""The answers that each file of sql/ must give to one input, on every engine: tests/sql/NAME.csv beside sql/NAME.sql.

The input is `example()`. A new synthesis needs its file: `python tests/expected_answers.py NAME` writes what DuckDB
says now, to be read and believed, or mended, before it is committed.
"""

import csv
import sys
from pathlib import Path

import pyarrow as pa
from meta_analysis import bcg, packets, run

FOLDER = Path(__file__).parent / "sql"


def example() -> pa.Table:
    """The BCG trials with all that a packet may carry; and a problem with a liar, a packet without a standard error,
    one sent twice and two interventions."""
    effects = [(0.1, 0.1), (0.3, 0.2), (0.2, None), (0.25, 0.15), (50.0, 0.01)]
    contexts = [{"age": 40, "ward": "a"}, {"age": 50, "ward": "b"}, {"ward": "a"}, {"age": 70, "ward": "b"}, {}]
    drug = packets(effects, address="test/small", contexts=contexts)
    diet = packets([(0.5, 0.3)], address="test/small", intervention="diet")
    return pa.concat_tables([bcg(), drug, drug.slice(0, 1), diet])


def expected(name: str) -> list[dict[str, str]]:
    """The rows of tests/sql/NAME.csv, every value a text; FileNotFoundError where nobody has written it."""
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_text(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for answer, rows in run(example(), *sys.argv[1:]).items():
        with (FOLDER / f"{answer}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(rows[0])
            writer.writerows(map(as_text, row.values()) for row in rows)
