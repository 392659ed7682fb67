"""One DoPut stream: every batch is checked whole, stored whole and acknowledged once it is on the disk."""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address, packet
from qis_connectors.errors import QisError
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.receipt import Receipt
from qis_connectors.router.access import Permit
from qis_connectors.router.acks import Acks
from qis_connectors.router.entry import Entry
from qis_connectors.router.idle import Pulse
from qis_connectors.router.inflight import InFlight
from qis_connectors.router.packet_log.admission import Check, Deposit, Problem, check_problem
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.traffic import Tally

MAX_ROWS = 65_536
MAX_BYTES = 64 << 20
PATIENCE_SECONDS = 1.0

Enter = Callable[[pa.RecordBatch, int], None]
"""Of a batch of so many bytes that has come: BusyError where its sender has used up its quota."""

Prepare = Callable[[pa.RecordBatch, int, Acks], Callable[[], None]]
"""Checks a batch of so many bytes, as far as its stream's thread does that, and says how to hand it on; PacketError
where it is bad."""

Stage = Callable[[pa.RecordBatch, Callable[[Receipt | QisError], None]], None]
"""Takes complete packets, and whom to tell when they are safe on the disk or why they are not."""


def depositing(log: PacketLog, name: str, permit: Permit, entry: Entry) -> Prepare:
    """For the address `name`."""
    problem = _problem(name, permit)

    def prepare(batch: pa.RecordBatch, size: int, acks: Acks) -> Callable[[], None]:
        permit.check()
        return partial(log.put, _deposit(name, batch, size, problem, acks, entry))

    return prepare


def staging(stage: Stage, name: str | None, permit: Permit, check: Check | None) -> Prepare:
    """For a transaction; `name` is the address of all rows, where there is one."""
    problem = _problem(name, permit)

    def prepare(batch: pa.RecordBatch, _: int, acks: Acks) -> Callable[[], None]:
        permit.check()
        packets = packet.complete(batch)
        check_problem(packets, problem)
        if check:
            check(packets)
        return partial(stage, packets, acks.put)

    return prepare


def receive(
    prepare: Prepare,
    reader: flight.MetadataRecordBatchReader,
    writer: flight.FlightMetadataWriter,
    in_flight: InFlight,
    tally: Tally,
    enter: Enter,
    pulse: Pulse,
) -> None:
    """Prepare and hand on the batches that arrive, and acknowledge each once it is safe.

    Raises PacketError for the first bad batch, of which nothing is stored, and BusyError for one that finds no room or
    is over the depositor's quota; the batches before it stay.
    """
    acks = Acks(writer, tally)
    try:
        while _receive_next(prepare, reader, acks, in_flight, enter):
            pulse.beat()
    except QisError as error:
        if not acks.finish(PATIENCE_SECONDS):
            # Unread acknowledgements stand before the refusal on the wire. Whether the client reads them first or
            # writes to the end first, it must not find us waiting for the other.
            acks.fail(error)
            _discard(reader)
        raise
    finally:
        acks.finish()
    if acks.failure:
        raise acks.failure


def _receive_next(
    prepare: Prepare,
    reader: flight.MetadataRecordBatchReader,
    acks: Acks,
    in_flight: InFlight,
    enter: Enter,
) -> bool:
    """Whether there was one. Its own function: a stream that waits for its next batch keeps the last one no longer."""
    in_flight.wait_for_room()
    batch = _next_batch(reader)
    if batch is None:
        return False
    arrived = perf_counter()
    size = _check_bounds(batch)
    enter(batch, size)
    with in_flight.holding(size):
        hand_on = prepare(batch, size, acks)
        if acks.failure:
            raise acks.failure
        acks.expect(arrived, size)
        hand_on()
    return True


def _problem(name: str | None, permit: Permit) -> Problem:
    """What each packet must say of where it goes and whose it is."""
    return (*(address.parts(name)[:2] if name else (None, None)), permit.node_id)


def _deposit(name: str, batch: pa.RecordBatch, size: int, problem: Problem, acks: Acks, entry: Entry) -> Deposit:
    if batch.num_rows <= entry.together_rows and batch.schema in (INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA):
        return Deposit(name, batch, size, acks.put, problem, acks)
    packets = packet.complete(batch)
    check_problem(packets, problem)
    places = entry.check(packets) if entry.check else None
    return Deposit(name, packets, packets.get_total_buffer_size(), acks.put, None, acks, places)


def _next_batch(reader: flight.MetadataRecordBatchReader) -> pa.RecordBatch | None:
    while True:
        try:
            batch = reader.read_chunk().data
        except StopIteration:
            return None
        except (pa.ArrowException, OSError) as error:
            raise PacketError("batch", f"is not an Arrow message ({str(error).splitlines()[0]:.200})") from None
        if batch is not None:  # there are messages of metadata only
            return batch


def _discard(reader: flight.MetadataRecordBatchReader) -> None:
    try:
        while _next_batch(reader) is not None:
            pass
    except QisError:
        return


def _check_bounds(batch: pa.RecordBatch) -> int:
    """The bytes of the batch; PacketError where it is too large."""
    if batch.num_rows > MAX_ROWS:
        raise PacketError("batch", f"has {batch.num_rows} rows; at most {MAX_ROWS} are allowed")
    # Of the buffers as they came: nothing reads what is in them before it has been validated.
    size: int = batch.get_total_buffer_size()
    if size > MAX_BYTES:
        raise PacketError("batch", f"is {size} bytes long; at most {MAX_BYTES} are allowed")
    return size
