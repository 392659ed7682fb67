"""One DoPut stream: every batch is checked whole, stored whole and acknowledged once it is on the disk."""

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from qis_connectors import address, packet
from qis_connectors.errors import QisError
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.router.acks import Acks
from qis_connectors.router.admission import Deposit, check_problem
from qis_connectors.router.log import PacketLog

MAX_ROWS = 65_536
MAX_BYTES = 64 << 20
PATIENCE_SECONDS = 1.0
TOGETHER_ROWS = 2048
"""Batches up to here are checked by the log's thread, with what else has come; above, by the stream's own."""


def receive(
    log: PacketLog, name: str, reader: flight.MetadataRecordBatchReader, writer: flight.FlightMetadataWriter
) -> None:
    """Store the batches that arrive for the address `name`.

    Raises PacketError for the first bad batch, of which nothing is stored; the batches before it stay.
    """
    problem = address.parts(name)[:2]
    acks = Acks(writer)
    try:
        for batch in _batches(reader):
            deposit = _deposit(name, batch, problem, acks)
            if acks.failure:
                raise acks.failure
            acks.expect()
            log.put(deposit)
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


def _deposit(name: str, batch: pa.RecordBatch, problem: tuple[str, ...], acks: Acks) -> Deposit:
    size = _check_bounds(batch)
    if batch.num_rows <= TOGETHER_ROWS and batch.schema in (INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA):
        packet.validate(batch)
        return Deposit(name, batch, size, acks.put, problem, acks)
    packets = packet.complete(batch)
    check_problem(packets, problem)
    return Deposit(name, packets, packets.get_total_buffer_size(), acks.put, None, acks)


def _batches(reader: flight.MetadataRecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            chunk = reader.read_chunk()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise PacketError("batch", f"is not an Arrow message ({str(error).splitlines()[0]:.200})") from None
        if chunk.data is not None:
            yield chunk.data


def _discard(reader: flight.MetadataRecordBatchReader) -> None:
    try:
        for _ in _batches(reader):
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
