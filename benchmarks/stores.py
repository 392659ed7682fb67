"""Stores to measure on, filled through the log and not over the wire, and the processes that serve them."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore

import numpy as np
import pyarrow as pa
from load import ADDRESS, hex_texts, packets
from pyarrow import flight

from qis_connectors import packet
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router.packet_log.log import PacketLog

PACKETS_AN_ADDRESS = 1000
_HERE = Path(__file__).parent


@contextmanager
def server(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    process = _start(kind, folder)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def start_after_kill(folder: Path, deposit: pa.RecordBatch) -> float:
    """Seconds from starting a router's process to its being there, after one was killed behind a deposit."""
    first = _start("router", folder)
    assert first.stdout
    url = first.stdout.readline().strip()
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), deposit.schema)
        with writer:
            writer.write_batch(deposit)
            assert acks.read() is not None
    first.kill()
    first.wait()
    started = time.perf_counter()
    again = _start("router", folder)
    assert again.stdout
    assert again.stdout.readline().startswith("grpc")
    elapsed = time.perf_counter() - started
    again.kill()
    again.wait()
    first.stdout.close()
    again.stdout.close()
    return elapsed


def fill_one_by_one(folder: Path, rows: int) -> float:
    """One-row deposits at ADDRESS, merged as they come; bytes on disk per packet once the log is closed."""
    log = PacketLog(folder)
    room = Semaphore(1024)
    for _ in range(0, rows, 5000):
        block = packet.complete(packets(min(rows, 5000)))
        for at in range(block.num_rows):
            room.acquire()
            log.append(ADDRESS, block.slice(at, 1), lambda _: room.release())
    log.close()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / rows


def fill_many_addresses(folder: Path, rows: int) -> list[str]:
    """PACKETS_AN_ADDRESS packets at each of many addresses, with ids of their own: the log takes them as given."""
    log = PacketLog(folder)
    names = [f"clinical.tuberculosis/problem-{number:06}" for number in range(rows // PACKETS_AN_ADDRESS)]
    block = packets(PACKETS_AN_ADDRESS)
    for number, name in enumerate(names):
        log.append(name, _identified(block, number), lambda _: None)
    log.close()
    return names


def _identified(batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
    random = np.random.default_rng(number)
    columns = {name: batch[name] for name in batch.schema.names}
    columns["packet_id"] = hex_texts(random.bytes(16 * batch.num_rows), 32)
    return pa.RecordBatch.from_arrays(
        [columns.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in OUTCOME_PACKET_SCHEMA],
        schema=OUTCOME_PACKET_SCHEMA,
    )


def _start(kind: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(_HERE / "bare_flight.py"), kind, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
