"""Results are whole or not there: a file is written beside its place and moved into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to write to, of the same suffix; it takes `path`'s place at the end, or is gone after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_parquet(table: pa.Table, path: Path) -> None:
    """The table as one Parquet file, whole or not there."""
    # A dictionary of numbers that hardly repeat takes longer than all the rest of the writing.
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with replacing(path) as draft:
        pq.write_table(table, draft, use_dictionary=texts)
