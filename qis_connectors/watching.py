"""Following a router: what is stored, then what arrives, across its restarts, each packet once."""

import json
import logging
import random
import time
from collections.abc import Generator
from contextlib import closing, suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import flight

from qis_connectors.connection import Packets, UnreachableError, connect, one_line_errors
from qis_connectors.errors import QisError
from qis_connectors.request import encode

if TYPE_CHECKING:
    from qis_connectors.network.identity import Identity

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 15.0
SILENCE_SECONDS = 20.0
"""A router says something every five seconds; one that has not for so long is gone, whatever TCP believes."""

_AHEAD = 4  # messages that wait for the caller; the next ones wait at the router
logger = logging.getLogger(__name__)


def watch(
    url: str, identity: "Identity | None", store: str, address: str | None, since: int | None, **fields: object
) -> Generator[Packets, None, None]:
    """Packets as they come, for a request of these fields; `since` is a cursor of `store`.

    Ends only with its caller. A router that goes away is tried again, for ever; raises QisError where it refuses.
    """
    failures = 0
    while True:
        try:
            client, found = connect(url, identity)
            with client:
                if found != store:
                    logger.warning("router %s has another store than before: reading it from its beginning", url)
                    store, since = found, None
                with closing(_follow(client, url, encode(address, since=since, **fields))) as messages:
                    for packets in messages:
                        if failures:
                            logger.info("router %s is back", url)
                        failures, since = 0, packets.cursor
                        if packets.table.num_rows:
                            yield packets
            reason = f"router {url} has ended the stream"
        except UnreachableError as error:
            reason = str(error)
        if not failures:
            logger.warning("%s; trying again", reason)
        # At random between half and all of it: a thousand watchers do not come back at the same moment.
        time.sleep(random.uniform(0.5, 1) * min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**failures))
        failures = min(failures + 1, 16)


def _follow(client: flight.FlightClient, url: str, command: bytes) -> Generator[Packets, None, None]:
    """The messages of one DoExchange, to its end."""
    messages: Queue[Packets | QisError | None] = Queue(_AHEAD)
    has_left = Event()
    with one_line_errors(url):
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command))
    # Flight's read cannot be interrupted, so it has a thread of its own and Ctrl-C finds the caller in `get`.
    pump = Thread(target=_pump, args=(reader, url, messages, has_left), name="qis-watch", daemon=True)
    pump.start()
    try:
        while (message := _get(messages, url)) is not None:
            if isinstance(message, QisError):
                raise message
            yield message
    finally:
        has_left.set()
        reader.cancel()
        pump.join()
        with suppress(pa.ArrowException, flight.FlightError, OSError):
            writer.close()


def _get(messages: Queue[Packets | QisError | None], url: str) -> Packets | QisError | None:
    try:
        return messages.get(timeout=SILENCE_SECONDS)
    except Empty:
        raise UnreachableError(f"cannot reach router {url}: it has gone silent") from None


def _pump(
    reader: flight.FlightStreamReader, url: str, messages: Queue[Packets | QisError | None], has_left: Event
) -> None:
    end: QisError | None = None
    try:
        with one_line_errors(url):
            while True:
                try:
                    chunk = reader.read_chunk()
                except StopIteration:
                    break
                table = pa.Table.from_batches([chunk.data])
                _put(Packets(table, **json.loads(chunk.app_metadata.to_pybytes())), messages, has_left)
    except QisError as error:
        end = error
    _put(end, messages, has_left)


def _put(message: Packets | QisError | None, messages: Queue[Packets | QisError | None], has_left: Event) -> None:
    while not has_left.is_set():
        with suppress(Full):
            messages.put(message, timeout=0.1)
            return
