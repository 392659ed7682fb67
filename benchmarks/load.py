"""Packets to send, and raw pyarrow.flight clients that send them: what any client of the published contract does."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain, count
from statistics import median
from threading import Thread

import numpy as np
import pyarrow as pa
from pyarrow import flight

from qis_connectors.packet import INTERCHANGE_SCHEMA

ADDRESS = "clinical.tuberculosis/bcg_vaccine"
CLIENTS = 16
WINDOW = 32
"""Deposits a pipelining client has under way at most."""
_BLOCK = 4096
_next = count(1_700_000_000_000, _BLOCK)


def packets(rows: int) -> pa.RecordBatch:
    """Fifteen-field packets, no two alike in this process; a good 300 bytes each."""
    start = next(_next)
    random = np.random.default_rng(start)
    constant = {
        "domain": "clinical.tuberculosis",
        "problem_type": "bcg_vaccine",
        "model_architecture": "two_arm_comparison",
        "training_phase": "follow_up_14d",
        "metric_name": "log_risk_ratio",
        "intervention_type": "bcg_vaccination",
    }
    varying = {
        "node_id": pa.array([f"site-{number:04}" for number in random.integers(0, 500, rows)]),
        "timestamp_utc": pa.array(np.arange(start, start + rows)),
        "metric_delta": pa.array(random.normal(size=rows).astype(np.float32)),
        "metric_value": pa.array(random.random(rows, np.float32)),
        "confidence": pa.array(random.random(rows, np.float32)),
        "intervention_params": pa.array([f'{{"dose":{dose}}}' for dose in random.integers(1, 100, rows)]),
        "outcome_decile": pa.array(random.integers(1, 11, rows).astype(np.int8)),
        "sample_count": pa.array(random.integers(11, 9999, rows).astype(np.int32)),
        "raw_data_hash": hex_texts(random.bytes(32 * rows), 64),
    }
    columns = [
        varying[name] if name in varying else pa.array([constant[name]] * rows) for name in INTERCHANGE_SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(columns, schema=INTERCHANGE_SCHEMA)


def hex_texts(data: bytes, digits: int) -> pa.Array:
    text = data.hex().encode()
    offsets = np.arange(0, len(text) + 1, digits, dtype=np.int32)
    return pa.StringArray.from_buffers(len(text) // digits, pa.py_buffer(offsets), pa.py_buffer(text))


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """For ever, `rows` packets at a time. Only their times tell one block from the next: making all of a block anew
    costs more than a server takes to swallow it.
    """
    block = _template(max(rows, _BLOCK))
    while True:
        start = next(_next)
        block = block.set_column(1, block.schema.field(1), pa.array(np.arange(start, start + block.num_rows)))
        for at in range(0, block.num_rows - rows + 1, rows):
            yield block.slice(at, rows)


@cache
def _template(rows: int) -> pa.RecordBatch:
    return packets(rows)


def send(url: str, seconds: float, window: int, rows: int = 1) -> list[float]:
    """Deposit for so long with at most `window` under way; when each acknowledgement came, the start first."""
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), INTERCHANGE_SCHEMA)
        with writer:
            under_way, source = 0, batches(rows)
            first = next(source)
            times = [time.perf_counter()]
            end = times[0] + seconds
            for batch in chain([first], source):
                writer.write_batch(batch)
                under_way += 1
                if under_way >= window:
                    acks.read()
                    under_way -= 1
                    times.append(time.perf_counter())
                if time.perf_counter() > end:
                    break
            for _ in range(under_way):
                assert acks.read() is not None, "the server has ended the stream"
                times.append(time.perf_counter())
            writer.done_writing()
    return times


def awaited_milliseconds(url: str, seconds: float) -> float:
    """p50 of one deposit on an open stream, from sending it to its acknowledgement."""
    return 1000 * median(np.diff(send(url, seconds, window=1)).tolist())


def deposits_per_second(url: str, seconds: float, window: int, clients: int = CLIENTS, rows: int = 1) -> float:
    found: list[list[float]] = []
    threads = [
        Thread(target=lambda: found.append(send(url, seconds, window, rows)), name=f"client-{number}")
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == clients, "a client failed"
    elapsed = max(times[-1] for times in found) - min(times[0] for times in found)
    return sum(len(times) - 1 for times in found) / elapsed


def read_seconds(url: str, ticket: str = ADDRESS) -> tuple[float, pa.Table]:
    with flight.connect(url) as client:
        started = time.perf_counter()
        table = client.do_get(flight.Ticket(ticket)).read_all()
        return time.perf_counter() - started, table


def paired(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each, measured in turns so that a slow minute of the machine strikes all of them."""
    found = [[measure() for measure in measures] for _ in range(rounds)]
    return [median(column) for column in zip(*found, strict=True)]
