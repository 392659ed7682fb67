"""A DoExchange stream as a client meets it that knows pyarrow.flight and nothing of ours."""

import json
import time
from contextlib import contextmanager, suppress

import pyarrow as pa
from pyarrow import flight

from qis_connectors.router import exchange

HERE = "clinical.tuberculosis/bcg_vaccine"
SOON_SECONDS = 2 * exchange.POLL_SECONDS


@contextmanager
def exchanging_on(client, command=HERE):
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command))
    try:
        yield reader
    finally:
        reader.cancel()
        with suppress(flight.FlightError, pa.ArrowException):
            writer.close()


@contextmanager
def exchanging(url, command=HERE):
    with flight.connect(url) as client, exchanging_on(client, command) as reader:
        yield reader


def message(reader):
    chunk = reader.read_chunk()
    return chunk.data, json.loads(chunk.app_metadata.to_pybytes())["cursor"]


def times(reader, number):
    """The milliseconds of so many packets, which are their order of depositing here."""
    found = []
    while len(found) < number:
        found += [at - 1_700_000_000_000 for at in message(reader)[0]["timestamp_utc"].to_pylist()]
    return found


def has_come(condition, seconds=SOON_SECONDS):
    """Whether it does within so many seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
