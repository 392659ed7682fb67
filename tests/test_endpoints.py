"""A large read in several tickets: disjoint, and together what one read gives at that moment."""

import json
from itertools import pairwise
from threading import Event, Thread

import pyarrow as pa
import pytest
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.router import endpoints
from qis_connectors.router.packet_log.chunk import SPAN

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def client(router, packets, monkeypatch):
    """A router with 5 packets in each of 9 spans, at two addresses; an endpoint is about 10 packets here."""
    monkeypatch.setattr(endpoints, "ROWS", 10)
    with RouterClient(router.url) as client:
        for span in range(9):
            router._packets.head = max(router._packets.head, span * SPAN)
            client.deposit(packets(3, 10 * span))
            client.deposit(packets(2, 10 * span, problem_type="other"))
        yield client


def union(client, tickets):
    parts = [client.read_ticket(ticket) for ticket in tickets]
    return pa.concat_tables([part.table for part in parts]), parts[-1].cursor


@pytest.mark.parametrize(
    ("address", "request_fields", "count"),
    [
        ("*", {}, 5),
        (HERE, {}, 3),
        ("clinical.*", {"since": 4 * SPAN + 2}, 3),
        ("*", {"columns": ["timestamp_utc"], "filters": ["timestamp_utc", ">", 1_700_000_000_031]}, 5),
        ("*", {"limit": 17}, 1),
        ("*", {"since": 100 * SPAN}, 1),
        ("not/there", {}, 1),
    ],
)
def test_together_they_are_the_single_read(client, address, request_fields, count):
    tickets = client.endpoints(address, **request_fields)
    assert len(tickets) == count
    whole = client.read(address, **request_fields)
    table, cursor = union(client, tickets)
    assert table.equals(whole.table)
    assert cursor == whole.cursor
    ranges = [(json.loads(ticket)["since"], json.loads(ticket)["until"]) for ticket in tickets]
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_there_are_at_most_64_of_them(client, monkeypatch):
    monkeypatch.setattr(endpoints, "ROWS", 1)
    monkeypatch.setattr(endpoints, "MAX_ENDPOINTS", 4)
    tickets = client.endpoints("*")
    assert len(tickets) == 4
    assert union(client, tickets)[0].equals(client.read("*").table)


def test_they_have_no_location_and_say_up_to_where(client):
    with flight.connect(client.url) as plain:
        info = plain.get_flight_info(flight.FlightDescriptor.for_path("clinical.*"))
    assert [endpoint.locations for endpoint in info.endpoints] == [[]] * 5
    assert info.total_records == 45
    assert json.loads(info.app_metadata) == {"store": client.store, "cursor": client.stats()["cursor"]}


def test_what_is_deposited_meanwhile_is_in_none_of_them(client, router, packets):
    stop = Event()

    def deposit():
        with RouterClient(router.url) as other:
            at = 1000
            while not stop.is_set():
                other.deposit(packets(1, at, problem_type=("bcg_vaccine", "other")[at % 2]))
                at += 1

    thread = Thread(target=deposit)
    thread.start()
    try:
        for _ in range(30):
            tickets = client.endpoints("*")
            table, cursor = union(client, tickets)
            until = json.loads(tickets[-1])["until"]
            single = client.read_ticket(json.dumps({"v": 1, "address": "*", "until": until}).encode())
            assert table.equals(single.table)
            assert cursor == single.cursor == until
            assert client.read("*").table.slice(0, table.num_rows).equals(table)
    finally:
        stop.set()
        thread.join()
    assert client.read("*").table.num_rows > 45
