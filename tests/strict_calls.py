"""A call of a router of a network, with whatever a stranger may bring along."""

import json

import pytest
from pyarrow import flight


def call(router, tls, token=None):
    """The router's health, asked for with what a stranger may bring along."""
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    options = flight.FlightCallOptions(timeout=5, headers=headers)
    with flight.connect(router.url, **tls) as client:
        (answer,) = client.do_action(flight.Action("health", b""), options)
        return json.loads(answer.body.to_pybytes())


def refused(router, tls, token, why):
    with pytest.raises(flight.FlightUnauthenticatedError, match=why):
        call(router, tls, token)


def deposit(client, descriptor, table):
    writer, _ = client.do_put(descriptor, table.schema)
    with writer:
        writer.write_table(table)
