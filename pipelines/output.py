"""Rows on standard output, as a table for people or as JSON or CSV for programs."""

import json
import math
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import csv
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from qis_connectors.receipt import Receipt

WIDEST = 2000
notices = Console(stderr=True, highlight=False, soft_wrap=True)


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"


def notice(text: str) -> None:
    """A line for the person who ran the command, on standard error."""
    notices.print(text, markup=False)


def say_receipt(receipt: "Receipt") -> None:
    notice(f"{receipt.stored} packets stored, {receipt.duplicates} were there already")


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
        _print_whole(rich_table(rows.select(shown) if shown else rows))


class RowStream:
    """Rows that come a few at a time, as one table with one header; JSON is one object a line.

    Whoever reads standard output has each row as soon as it is printed. `shown` are the columns of the table form.
    """

    def __init__(self, form: Format, shown: Sequence[str]) -> None:
        self._form = form
        self._shown = list(shown)
        self._widths: list[int] = []  # of the table's columns so far; they grow and never shrink

    def print(self, rows: pa.Table) -> None:
        if self._form is Format.json:
            for row in rows.to_pylist():
                json.dump({name: _plain(value) for name, value in row.items()}, sys.stdout, ensure_ascii=False)
                sys.stdout.write("\n")
        elif self._form is Format.csv:
            options = csv.WriteOptions(include_header=not self._widths)
            csv.write_csv(_flat(rows), sys.stdout.buffer, options)
            sys.stdout.buffer.flush()
            self._widths = self._widths or [0]
        else:
            self._print_lines(rows.select(self._shown))
        sys.stdout.flush()

    def _print_lines(self, rows: pa.Table) -> None:
        table = rich_table(rows)
        table.box, table.show_header = None, not self._widths
        widths = [max(_width(column.header), *map(_width, column.cells)) for column in table.columns]
        self._widths = [max(pair) for pair in zip(widths, self._widths or widths, strict=True)]
        for column, width in zip(table.columns, self._widths, strict=True):
            column.min_width = width
        _print_whole(table)


def rich_table(rows: pa.Table, title: str | None = None) -> Table:
    """The rows as a terminal table, numbers to four decimals and right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for field in rows.schema:
        numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        table.add_column(field.name, justify="right" if numeric else "left")
    for row in rows.to_pylist():
        table.add_row(*map(_cell, row.values()))
    return table


def _print_whole(table: Table) -> None:
    """A wide answer runs over the edge, as psql's does, rather than being cut to dots."""
    console = Console()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=WIDEST)).maximum)
    console.print(table)


def _width(cell: RenderableType) -> int:
    return Text.from_markup(str(cell)).cell_len


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
    """Lists as JSON and binaries in hex: CSV has neither."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            plain = map(_plain, rows.column(at).to_pylist())
            values = [one if one is None or isinstance(one, str) else json.dumps(one) for one in plain]
            rows = rows.set_column(at, field.name, pa.array(values, pa.string()))
    return rows
