"""Packets in a file somebody else wrote: Parquet, Arrow IPC or CSV."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError, conform


def read_packets(path: Path) -> pa.Table:
    """The file's packets in the schema's order and types; PacketError names the file or the field that is wrong."""
    reader = {".parquet": pq.read_table, ".arrow": _read_arrow, ".csv": _read_csv}.get(path.suffix.lower())
    if reader is None:
        raise PacketError("file", f"{path} is not a .parquet, .arrow or .csv file")
    try:
        table = reader(path)
    except pa.ArrowException as error:
        raise PacketError("file", f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return conform(table)


def _read_arrow(path: Path) -> pa.Table:
    """An Arrow IPC file, or a stream."""
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _read_csv(path: Path) -> pa.Table:
    """Text columns stay text: a problem type that looks like a number is still a name. An empty cell is NULL."""
    types = {field.name: field.type for field in OUTCOME_PACKET_SCHEMA if not pa.types.is_nested(field.type)}
    options = csv.ConvertOptions(
        column_types=types, strings_can_be_null=True, null_values=[""], quoted_strings_can_be_null=False
    )
    table = csv.read_csv(path, convert_options=options)
    if "likelihood" in table.column_names:
        raise PacketError("likelihood", "a list has no form in CSV; use Parquet or Arrow")
    return table
