"""How large a packet is on the wire, and what it costs to check one.

python benchmarks/packet.py [--json] [--quick]
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pyarrow as pa
from figures import Figure, main

from pipelines import bcg
from pipelines.distill import distill
from pipelines.shipped import shipped
from pipelines.study import load
from qis_connectors.chain import SIGNATURE_BYTES
from qis_connectors.packet import (
    INTERCHANGE_SCHEMA,
    MAX_BYTES,
    MAX_BYTES_WITH_LIKELIHOOD,
    OUTCOME_PACKET_SCHEMA,
    SIZE_ROWS,
    complete,
    ipc_bytes,
)

SIGNED = {"signature": bytes(SIGNATURE_BYTES), "key_id": "0123456789abcdef", "sequence": 1}


def measure(quick: bool) -> Iterable[Figure]:
    packets = _bcg_packets()
    for rows in (1, 13, 100, SIZE_ROWS):
        size = ipc_bytes(_repeat(packets, rows)) / rows
        name = f"BCG packet, bytes at {rows} a batch"
        yield Figure(name, size, f"<= {MAX_BYTES}" if rows == SIZE_ROWS else "")
    # Each line adds to the one above.
    for name, extra, limit in (
        ("the same, signed", SIGNED, MAX_BYTES),
        ("signed, 16 likelihood values", {**SIGNED, "likelihood": [0.5] * 16}, MAX_BYTES_WITH_LIKELIHOOD),
    ):
        rows_with = [{**row, "packet_id": None, **extra} for row in packets.to_pylist()]
        batch = complete(pa.RecordBatch.from_pylist(rows_with, schema=OUTCOME_PACKET_SCHEMA))
        size = ipc_bytes(_repeat(batch, SIZE_ROWS)) / SIZE_ROWS
        yield Figure(f"{name}, bytes at {SIZE_ROWS} a batch", size, f"<= {limit}")
    yield Figure("100 nodes a round, kB", ipc_bytes(_repeat(packets, 100)) / 1000)
    yield Figure("fifteen fields as JSON lines, bytes", len(json.dumps(_fifteen(packets).to_pylist()[0])) + 1)
    for rows in (1, SIZE_ROWS):
        batch = _fifteen(_repeat(packets, rows))
        yield Figure(f"checking and identifying, us a packet at {rows} a batch", _seconds(batch, quick) / rows * 1e6)


def _bcg_packets() -> pa.RecordBatch:
    study = load(shipped("data/bcg.yaml"))
    with TemporaryDirectory() as folder:
        files = {site: Path(folder) / site / "rows.parquet" for site in bcg.trials()}
        for site, trial in bcg.trials().items():
            bcg.write_rows(trial, files[site])
        tables = [distill(study, site, rows).packets for site, rows in files.items()]
    return pa.concat_tables(tables).combine_chunks().to_batches()[0]


def _repeat(batch: pa.RecordBatch, rows: int) -> pa.RecordBatch:
    return batch.take(pa.array([row % batch.num_rows for row in range(rows)]))


def _fifteen(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.select(INTERCHANGE_SCHEMA.names)


def _seconds(batch: pa.RecordBatch, quick: bool) -> float:
    times = []
    for _ in range(20 if quick else 200):
        start = time.perf_counter()
        complete(batch)
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main("Packets on the wire", measure)
