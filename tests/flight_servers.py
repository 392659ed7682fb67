"""Flight servers that do what a router of ours does not (yet): ask for a token over TLS, stall, lie about a type."""

import threading

import pyarrow as pa
import pyarrow.json
from pyarrow import flight

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

NOTHING = OUTCOME_PACKET_SCHEMA.empty_table()


class TableServer(flight.FlightServerBase):
    """One table at every address, by `columns` if the request has them, as one endpoint.

    `stop_after` batches it says no more until its end.
    """

    def __init__(self, table, location="grpc://127.0.0.1:0", stop_after=None, **options):
        self.table, self.stop_after, self._closing = table, stop_after, threading.Event()
        super().__init__(location, **options)

    def get_flight_info(self, _, descriptor):
        columns = pa.json.read_json(pa.py_buffer(descriptor.command)).to_pylist()[0].get("columns")
        chosen = self.table.select(columns) if columns else self.table
        endpoint = flight.FlightEndpoint("\n".join(chosen.column_names).encode(), [])
        return flight.FlightInfo(chosen.schema, descriptor, [endpoint], self.table.num_rows, -1)

    def do_get(self, _, ticket):
        chosen = self.table.select(ticket.ticket.decode().split("\n"))
        return flight.GeneratorStream(chosen.schema, self._batches(chosen))

    def _batches(self, table):
        for at, batch in enumerate(table.to_batches(max_chunksize=16_384)):
            if at == self.stop_after:
                self._closing.wait()
            yield batch

    def __exit__(self, *raised):
        self._closing.set()
        super().__exit__(*raised)


class _Token(flight.ServerMiddlewareFactory):
    def start_call(self, _, headers):
        if headers.get("authorization") != ["Bearer open sesame"]:
            raise flight.FlightUnauthenticatedError("no such token")


def asks_for_a_token(table, certificate, key):
    """A TableServer over TLS that knows the token `open sesame` only."""
    return TableServer(
        table,
        "grpc+tls://localhost:0",
        tls_certificates=[(certificate.read_bytes(), key.read_bytes())],
        middleware={"token": _Token()},
    )
