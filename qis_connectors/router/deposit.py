"""One DoPut stream: every batch is checked whole, stored whole and acknowledged once it is on the disk."""

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyarrow import flight

from qis_connectors import packet
from qis_connectors.errors import QisError
from qis_connectors.packet import PacketError
from qis_connectors.receipt import Receipt
from qis_connectors.router.acks import Acks

MAX_ROWS = 65_536
MAX_BYTES = 64 << 20
PATIENCE_SECONDS = 1.0

Append = Callable[[pa.RecordBatch, Callable[[Receipt | QisError], None]], None]
"""Takes complete packets, and whom to tell when they are safe on the disk or why they are not."""


def receive(
    append: Append,
    problem: tuple[str, ...] | None,
    reader: flight.MetadataRecordBatchReader,
    writer: flight.FlightMetadataWriter,
) -> None:
    """Hand the batches that arrive, checked, to `append`, which stores or stages them and says so once they are safe.

    `problem` is the domain and problem_type that every row must name, where there are such. Raises PacketError on the
    first bad batch, of which nothing is stored; the batches before it stay.
    """
    acks = Acks(writer)
    try:
        for batch in _batches(reader):
            packets = _admit(batch, problem)
            if acks.failure:
                raise acks.failure
            acks.expect()
            append(packets, acks.put)
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


def _admit(batch: pa.RecordBatch, problem: tuple[str, ...] | None) -> pa.RecordBatch:
    """The batch, completed; PacketError where it is too large, not valid or does not belong to this address."""
    if batch.num_rows > MAX_ROWS:
        raise PacketError("batch", f"has {batch.num_rows} rows; at most {MAX_ROWS} are allowed")
    # Of the buffers as they came: nothing reads what is in them before `complete` has validated it.
    size = batch.get_total_buffer_size()
    if size > MAX_BYTES:
        raise PacketError("batch", f"is {size} bytes long; at most {MAX_BYTES} are allowed")
    packets = packet.complete(batch)
    for field, wanted in zip(("domain", "problem_type"), problem, strict=True) if problem else ():
        values = packets[field].to_pylist()
        for value in set(values) - {wanted}:
            reason = f"{value!r:.60} is not the {wanted!r:.60} of the address it is deposited at"
            raise PacketError(field, reason, values.index(value))
    return packets
