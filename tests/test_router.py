"""The router as a client meets it that knows pyarrow.flight and fifteen fields, and nothing of ours."""

import json
import re
import time

import pyarrow as pa
import pytest
from pyarrow import flight

from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA
from qis_connectors.router.deposit import PATIENCE_SECONDS

HERE = "clinical.tuberculosis/bcg_vaccine"
NODE_IDS = b'{"v": 1, "address": "*", "columns": ["node_id"]}'


@pytest.fixture
def client(router):
    with flight.connect(router.url) as client:
        yield client


def put(client, table, *path):
    writer, acks = client.do_put(flight.FlightDescriptor.for_path(*path or [HERE]), table.schema)
    with writer:
        writer.write_table(table)
        writer.done_writing()
        found = []
        while (ack := acks.read()) is not None:
            found.append(json.loads(ack.to_pybytes()))
    return found


def get(client, ticket=HERE):
    return client.do_get(flight.Ticket(ticket)).read_all()


def refusal(call):
    """The line of the Flight error that `call` ends with."""
    with pytest.raises(flight.FlightServerError) as error:
        call()
    line = str(error.value).split(". gRPC client debug context:")[0].removesuffix(". Detail: Failed")
    assert not re.search(r"Traceback|\.py|/work|/tmp|\n", str(error.value)), error.value
    return line


def test_fifteen_fields_there_and_back(client, packets):
    sent = packets(3, intervention_params='{"Größe":"12 µg"}')
    writer, _ = client.do_put(flight.FlightDescriptor.for_path(HERE), INTERCHANGE_SCHEMA)
    writer.write_table(sent)
    writer.close()
    found = get(client)
    assert found.schema == OUTCOME_PACKET_SCHEMA
    assert found.select(INTERCHANGE_SCHEMA.names) == sent
    assert found["packet_id"].null_count == 0
    assert found["context"].null_count == 3


@pytest.mark.parametrize(
    "path",
    [
        (HERE,),
        ("clinical.tuberculosis", "bcg_vaccine"),
        (HERE, "north"),
        ("clinical.tuberculosis", "bcg_vaccine", "arm%201"),
    ],
)
def test_a_path_may_come_in_parts_and_go_deeper(client, packets, path):
    assert put(client, packets(2), *path) == [{"stored": 2, "duplicates": 0, "cursor": 2}]
    assert get(client, "/".join(path)).num_rows == 2


def test_every_batch_is_acknowledged_with_its_cursor(client, packets):
    tables = [packets(2), packets(3), packets(4, 10)]
    table = pa.Table.from_batches([batch for table in tables for batch in table.to_batches()])
    assert put(client, table) == [
        {"stored": 2, "duplicates": 0, "cursor": 2},
        {"stored": 1, "duplicates": 2, "cursor": 3},
        {"stored": 4, "duplicates": 0, "cursor": 7},
    ]


def test_acknowledgements_may_stay_unread(client, packets):
    table = packets(5000)
    writer, _ = client.do_put(flight.FlightDescriptor.for_path(HERE), table.schema)
    writer.write_table(table, max_chunksize=1)
    writer.close()
    assert get(client).select(INTERCHANGE_SCHEMA.names) == table


def test_a_refusal_comes_through_behind_unread_acknowledgements(router, packets):
    # The smallest window there is, or it would take 80,000 acknowledgements to fill it.
    window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
    client = flight.connect(router.url, generic_options=window)
    good, bad = packets(2000), packets(1, confidence=1.2)
    writer, acks = client.do_put(flight.FlightDescriptor.for_path(HERE), good.schema)
    writer.write_table(good, max_chunksize=1)
    writer.write_table(bad)
    while get(client, NODE_IDS).num_rows < 2000:
        time.sleep(0.05)
    time.sleep(2 * PATIENCE_SECONDS)
    answers = [json.loads(acks.read().to_pybytes()) for _ in range(2001)]
    assert sum(answer["stored"] for answer in answers[:-1]) == 2000
    line = refusal(writer.close)
    assert line.startswith("field 'confidence', row 0: 1.2")
    assert answers[-1] == {"error": line}
    assert get(client).num_rows == 2000
    client.close()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"confidence": 1.2}, r"field 'confidence', row 0: 1\.2\d* is outside 0\.\.1"),
        ({"outcome_decile": 0}, "field 'outcome_decile', row 0: 0 is outside 1..10"),
        ({"metric_delta": float("nan")}, "field 'metric_delta', row 0: nan is not a finite number"),
        ({"intervention_params": "{"}, "field 'intervention_params', row 0: '{' is not a JSON object"),
        ({"node_id": None}, "field 'node_id', row 0: is null"),
        ({"domain": ""}, "field 'domain', row 0: '' is empty"),
        (
            {"domain": "clinical.measles"},
            "field 'domain', row 0: 'clinical.measles' is not the 'clinical.tuberculosis' of the address .*",
        ),
        (
            {"problem_type": "bcg"},
            "field 'problem_type', row 0: 'bcg' is not the 'bcg_vaccine' of the address it is deposited at",
        ),
    ],
)
def test_a_bad_packet_refuses_its_batch_whole_and_nothing_else(client, packets, changes, line):
    put(client, packets(1))
    mixed = pa.concat_tables([packets(1, 0, **changes), packets(3, 1)]).combine_chunks()
    found = refusal(lambda: put(client, mixed))
    assert found == line or re.fullmatch(line, found)
    assert get(client).num_rows == 1
    assert put(client, packets(2))[0]["stored"] == 1


def test_what_was_acknowledged_before_a_bad_batch_stays(client, packets):
    batches = [*packets(2).to_batches(), *packets(1, 5, outcome_decile=11).to_batches(), *packets(1, 9).to_batches()]
    line = refusal(lambda: put(client, pa.Table.from_batches(batches)))
    assert line == "field 'outcome_decile', row 0: 11 is outside 1..10"
    assert get(client).num_rows == 2


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string_view()], ids=str)
def test_other_arrow_types_are_refused_by_field(client, packets, kind):
    table = packets(2)
    at = table.schema.get_field_index("problem_type")
    table = table.set_column(at, "problem_type", table["problem_type"].cast(kind))
    assert refusal(lambda: put(client, table)).startswith("field 'problem_type': has type ")
    assert get(client).num_rows == 0


def test_a_batch_has_an_upper_limit(client, packets):
    table = pa.concat_tables([packets(1)] * 65_537).combine_chunks()
    line = refusal(lambda: put(client, table))
    assert line == "field 'batch': has 65537 rows; at most 65536 are allowed"


@pytest.mark.parametrize(
    ("descriptor", "line"),
    [
        (flight.FlightDescriptor.for_command(b"tx"), "request 'tx' is not a JSON object"),
        (flight.FlightDescriptor.for_path("clinical"), "address 'clinical' has no problem type"),
        (flight.FlightDescriptor.for_path("a", ""), "address 'a/' has an empty or dotted segment ''"),
        (flight.FlightDescriptor.for_path("a", "b*"), "segment 'b*' of address 'a/b*' is not percent-encoded UTF-8"),
    ],
)
def test_a_deposit_needs_an_address(client, packets, descriptor, line):
    table = packets(1)

    def deposit():
        writer, _ = client.do_put(descriptor, table.schema)
        writer.close()

    assert refusal(deposit).startswith(line)


@pytest.mark.parametrize(
    ("ticket", "line"),
    [
        (b"a/\xff", "request is not UTF-8: byte 2 is 0xff"),
        (b"a//b", "address 'a//b' has an empty or dotted segment ''"),
        (b'{"v": 1, "address": "*", "limit": 0}', "request field 'limit': 0 is not a whole number of at least 1"),
    ],
)
def test_a_bad_request_is_refused(client, ticket, line):
    assert refusal(lambda: get(client, ticket)) == line
    command = flight.FlightDescriptor.for_command(ticket)
    assert refusal(lambda: client.get_flight_info(command)) == line
    assert client.get_schema(command).schema == OUTCOME_PACKET_SCHEMA
    assert get(client).num_rows == 0


def test_addresses_prefixes_and_globs(client, packets):
    put(client, packets(2))
    put(client, packets(1, problem_type="other"), "clinical.tuberculosis/other")
    put(client, packets(1, domain="imaging"), "imaging/bcg_vaccine")
    tickets = ("*", "clinical.*", "clinical.tuberculosis", "clinical.tuberculosis/", HERE, "*/bcg_vaccine", "clin")
    assert [get(client, ticket).num_rows for ticket in tickets] == [4, 3, 3, 3, 2, 3, 0]
    flights = {info.descriptor.path[0].decode(): info for info in client.list_flights(b"clinical.*")}
    assert [(name, info.total_records) for name, info in flights.items()] == [
        (HERE, 2),
        ("clinical.tuberculosis/other", 1),
    ]
    (endpoint,) = flights[HERE].endpoints
    assert client.do_get(endpoint.ticket).read_all().num_rows == 2
    assert len(list(client.list_flights())) == 3


def test_an_empty_address_is_an_empty_stream_with_the_schema(client, router):
    reader = client.do_get(flight.Ticket(HERE))
    chunk = reader.read_chunk()
    assert reader.schema == OUTCOME_PACKET_SCHEMA
    assert (chunk.data.num_rows, json.loads(chunk.app_metadata.to_pybytes())) == (
        0,
        {"cursor": 0, "store": router.store},
    )
    assert get(client) == OUTCOME_PACKET_SCHEMA.empty_table()
    assert client.get_flight_info(flight.FlightDescriptor.for_path(HERE)).total_records == 0


def test_flight_info_is_what_do_get_gives(client, packets, router):
    put(client, packets(5))
    command = json.dumps({"v": 1, "address": HERE, "columns": ["metric_delta", "node_id"], "limit": 2}).encode()
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    found = client.do_get(info.endpoints[0].ticket).read_all()
    assert info.schema == found.schema == client.get_schema(info.descriptor).schema
    assert found.to_pylist() == [{"metric_delta": -0.5, "node_id": "site-a"}] * 2
    assert json.loads(info.app_metadata) == {"store": router.store, "cursor": 5}
    assert client.get_flight_info(flight.FlightDescriptor.for_path(HERE)).total_records == 5


def test_actions(client, packets, router):
    put(client, packets(5))
    of_log, of_similarity = ["health", "stats", "quarantine", "begin", "commit", "abort"], ["definitions", "similar"]
    of_profiles = ["register_profile", "profiles", "drop_profile"]
    assert [action.type for action in client.list_actions()] == [*of_log, *of_similarity, *of_profiles]
    (health,), (stats,) = (list(client.do_action(name)) for name in ("health", "stats"))
    assert json.loads(health.body.to_pybytes()) == {"status": "ok", "store": router.store, "cursor": 5}
    found = json.loads(stats.body.to_pybytes())
    assert found.pop("bytes") > 1000
    assert found | {"store": router.store, "cursor": 5, "packets": 5, "addresses": 1} == found
    assert refusal(lambda: list(client.do_action("drop"))).startswith("action 'drop' is not known to this router")
