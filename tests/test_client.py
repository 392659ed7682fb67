"""Our own client against a real router."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from pyarrow import flight

from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.receipt import Receipt

HERE = "clinical.tuberculosis/bcg_vaccine"


@pytest.fixture
def client(router):
    with RouterClient(router.url) as client:
        yield client


def test_every_field_comes_back_as_it_went(client, packet_row):
    ours = {
        "metric_stderr": 0.25,
        "context": '{"latitude":44,"région":"Île-de-France"}',
        "likelihood": [-1.5, 0.0, -2.25],
        "sequence": 7,
        "signature": b"\x00\xff",
        "key_id": "key-1",
    }
    rows = [packet_row(**ours), packet_row(node_id="клиника-🏥", metric_delta=-0.0), packet_row(likelihood=[])]
    assert client.deposit(pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA)) == Receipt(3, 0, 3)
    found = client.read(HERE)
    empty = dict.fromkeys(ours)
    expected = [{**empty, **row} for row in rows]
    assert found.table.drop_columns("packet_id").to_pylist() == expected
    assert (found.cursor, found.store) == (3, client.store)


def test_a_table_goes_to_the_addresses_of_its_rows(client, packets):
    table = pa.concat_tables([packets(2), packets(1, domain="a b", problem_type="c/d"), packets(1, 5)])
    assert client.deposit(table) == Receipt(4, 0, 4)
    assert client.deposit(table.to_batches()[0]) == Receipt(0, 2, 4)
    assert client.addresses().drop_columns("bytes").to_pylist() == [
        {"address": "a%20b/c%2Fd", "packets": 1, "first_time": 1_700_000_000_000, "last_time": 1_700_000_000_000},
        {"address": HERE, "packets": 3, "first_time": 1_700_000_000_000, "last_time": 1_700_000_000_005},
    ]
    assert client.addresses("nothing").num_rows == 0


def test_what_other_engines_write_is_taken(client, packets):
    table = packets(3)
    wide = {"string": pa.large_string(), "float": pa.float64(), "int8": pa.int64()}
    kinds = [pa.field(field.name, wide.get(str(field.type), field.type)) for field in table.schema]
    assert client.deposit(table.cast(pa.schema(kinds))).stored == 3


def test_nothing_is_sent_where_one_packet_is_bad(client, packets):
    table = pa.concat_tables([packets(9000), packets(1, 9000, confidence=1.5)])
    with pytest.raises(PacketError, match=r"^field 'confidence', row 9000: 1.5 is outside 0..1$"):
        client.deposit(table)
    assert client.stats()["packets"] == 0


def test_since_columns_and_limit(client, packets):
    client.deposit(packets(10))
    page = client.read("clinical.*", since=4, columns=["timestamp_utc", "node_id"], limit=3)
    assert page.table.column_names == ["timestamp_utc", "node_id"]
    assert [time % 1000 for time in page.table["timestamp_utc"].to_pylist()] == [4, 5, 6]
    assert page.cursor == 7
    rest = client.read("clinical.*", since=page.cursor)
    assert (rest.table.num_rows, rest.cursor) == (3, 10)
    nothing = client.read(HERE, since=10)
    assert (nothing.table, nothing.cursor) == (OUTCOME_PACKET_SCHEMA.empty_table(), 10)
    assert client.read("other/address").cursor == 10
    assert client.stats()["cursor"] == 10


def test_one_row_deposits_come_back_in_few_batches(client, packets):
    for at in range(13):
        client.deposit(packets(1, at, node_id=f"site-{at}"))
    found = client.read(HERE).table
    assert found["node_id"].to_pylist() == [f"site-{at}" for at in range(13)]
    assert found["node_id"].num_chunks == 1


def test_depositors_at_once(client, router, packets):
    def deposit(site):
        with RouterClient(router.url) as own:
            return sum((own.deposit(packets(25, 25 * at, node_id=f"site-{site}")) for at in range(4)), Receipt())

    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(deposit, range(8)))
    assert [receipt.stored for receipt in receipts] == [100] * 8
    found = client.read(HERE)
    assert (found.table.num_rows, found.cursor) == (800, 800)
    assert max(receipt.cursor for receipt in receipts) == 800
    assert len(set(found.table["packet_id"].to_pylist())) == 800


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("grpc://127.0.0.1:1", "cannot reach router grpc://127.0.0.1:1: connection refused"),
        ("grpc://no.such.host.invalid:8815", "cannot reach router grpc://no.such.host.invalid:8815: "),
        ("nonsense", "nonsense does not answer as a router: "),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer as a router: "),
    ],
)
def test_an_unreachable_router_is_one_line_and_soon(url, line):
    started = time.monotonic()
    with pytest.raises(QisError) as error:
        RouterClient(url)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 8


def test_another_flight_server_is_no_router():
    with flight.FlightServerBase("grpc://127.0.0.1:0") as other:
        url = f"grpc://127.0.0.1:{other.port}"
        with pytest.raises(QisError, match=f"^{url} does not answer as a router: .*$") as error:
            RouterClient(url)
        assert "Traceback" not in str(error.value)


def test_a_router_that_went_away_is_one_line(router, packets):
    with RouterClient(router.url) as client:
        router.close()
        for call in (lambda: client.deposit(packets(1)), lambda: client.read(HERE), client.addresses, client.stats):
            with pytest.raises(QisError, match=f"^cannot reach router {router.url}: [^\n]*$"):
                call()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("qis-")]
