"""Rows on standard output, as a table for people or as JSON or CSV for programs."""

import json
import math
import sys
from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa
from pyarrow import csv
from rich.console import Console
from rich.table import Table

WIDEST = 2000


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"


def print_rows(rows: pa.Table, form: Format, shown: Sequence[str] | None = None) -> None:
    """Print every row. JSON is one array of objects; a value JSON cannot hold (NaN, infinity) is null there.

    `shown` are the columns of the table form where all of them would not fit a terminal.
    """
    if form is Format.json:
        records = [{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()]
        json.dump(records, sys.stdout, ensure_ascii=False, indent=None if len(records) > 1 else 2)
        sys.stdout.write("\n")
    elif form is Format.csv:
        sys.stdout.flush()
        csv.write_csv(_flat(rows), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        table = rich_table(rows.select(shown) if shown else rows)
        console = Console()
        # A wide answer runs over the edge, as psql's does, rather than being cut to dots.
        console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDEST)).maximum)
        console.print(table)


def rich_table(rows: pa.Table, title: str | None = None) -> Table:
    """The rows as a terminal table, numbers to four decimals and right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for field in rows.schema:
        numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        table.add_column(field.name, justify="right" if numeric else "left")
    for row in rows.to_pylist():
        table.add_row(*map(_cell, row.values()))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    # Markup in a stranger's packet must not colour our terminal.
    return (value.hex() if isinstance(value, bytes) else str(value)).replace("[", r"\[")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _flat(rows: pa.Table) -> pa.Table:
    """Lists and binaries as text: CSV has neither."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            values = [None if v is None else json.dumps(_plain(v)) for v in rows.column(at).to_pylist()]
            rows = rows.set_column(at, field.name, pa.array(values, pa.string()))
    return rows
