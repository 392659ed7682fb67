"""Sites with keys, what they have signed, and clients that send it."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from threading import Thread

import numpy as np
import pyarrow as pa
from load import ADDRESS, packets
from pyarrow import flight

from qis_connectors.keys import make_key
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.signing import sign


def make_sites(folder: Path, number: int) -> list[str]:
    """Secret keys in folder/secret, public ones in folder/keys; the node_ids."""
    (folder / "keys").mkdir()
    names = [f"site-{at:04}" for at in range(number)]
    for name in names:
        _, public = make_key(name, folder / "secret")
        public.rename(folder / "keys" / public.name)
    return names


def signed(folder: Path, node_id: str, rows: int) -> pa.RecordBatch:
    """The next packets of a site."""
    block = packets(rows)
    named = block.set_column(0, "node_id", pa.array([node_id] * rows))
    return sign(named, folder / "secret").combine_chunks().to_batches()[0]


def pieces(block: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for at in range(0, block.num_rows - rows + 1, rows):
        yield block.slice(at, rows)


def send(url: str, block: pa.RecordBatch, rows: int, window: int) -> list[float]:
    """Deposit all of the block, at most `window` batches under way: seconds each acknowledgement took to come."""
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), OUTCOME_PACKET_SCHEMA)
        with writer:
            sent: list[float] = []
            took: list[float] = []
            for batch in pieces(block, rows):
                sent.append(time.perf_counter())
                writer.write_batch(batch)
                if len(sent) - len(took) >= window:
                    assert acks.read() is not None, "the router has ended the stream"
                    took.append(time.perf_counter() - sent[len(took)])
            while len(took) < len(sent):
                assert acks.read() is not None, "the router has ended the stream"
                took.append(time.perf_counter() - sent[len(took)])
            writer.done_writing()
    return took


def packets_per_second(url: str, blocks: list[pa.RecordBatch], rows: int, window: int) -> float:
    """Of clients side by side, each with a block of its own."""
    done: list[list[float]] = []
    threads = [Thread(target=lambda block=block: done.append(send(url, block, rows, window))) for block in blocks]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == len(blocks), "a client failed"
    return sum(block.num_rows for block in blocks) / (time.perf_counter() - started)


def awaited_milliseconds(url: str, block: pa.RecordBatch) -> float:
    """p50 of one deposit on an open stream."""
    return 1000 * median(send(url, block, 1, 1))


def p99_milliseconds(took: list[float]) -> float:
    return float(1000 * np.percentile(took, 99))
