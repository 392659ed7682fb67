"""Readers who ask for similar sites: each way of asking, and what is refused."""

import json
import re
import shlex

import pyarrow as pa
import pytest
from exchanging import exchanging, message
from pyarrow import flight
from similar_sites import HERE, bcg_packets, definition, write

from pipelines.shipped import shipped
from qis_connectors import Node
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.request import similar
from qis_connectors.router import Router
from qis_connectors.similarity import context_of, load

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NEAR = load(shipped("similarity") / "clinical.tuberculosis.yaml")
OWN = {"latitude": 44}


@pytest.fixture(scope="module")
def sites(packet_row):
    return bcg_packets(packet_row)


@pytest.fixture(scope="module")
def url(tmp_path_factory, sites, packets):
    """A router with the thirteen trials, and ten packets without a context."""
    store = tmp_path_factory.mktemp("similar") / "store"
    with (
        Router(store, "grpc://127.0.0.1:0", similarity=shipped("similarity")) as router,
        RouterClient(router.url) as client,
    ):
        client.deposit(sites)
        client.deposit(packets(10))
        yield router.url


def wanted(sites, threshold=NEAR.threshold, own=OWN):
    """{node_id: score} by the formula itself."""
    scores = NEAR.scores(own, NEAR.encode([context_of(text) for text in sites["context"].to_pylist()]))
    return {node: score for node, score in zip(sites["node_id"].to_pylist(), scores, strict=True) if score >= threshold}


def told(table):
    return dict(zip(table["node_id"].to_pylist(), table["similarity"].to_pylist(), strict=True))


def test_node_router_sql_and_python_give_one_score(url, sites, qis):
    expected = wanted(sites)
    assert 3 < len(expected) < 13
    with Node("n", url, domain="clinical.tuberculosis", problem_type="bcg_vaccine") as node:
        found = node.query(similar_to=OWN)
        assert found.schema.names == [*OUTCOME_PACKET_SCHEMA.names, "similarity"]
        assert told(found) == expected
    with qis_duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT node_id, similarity FROM qis_packets(?, ?, similar_to := '{\"latitude\": 44}')", [url, HERE]
        ).fetchall()
        assert dict(rows) == expected
    asked = ("query", HERE, "--router", url, "--similar-to", json.dumps(OWN), "--format", "json")
    code, out, _ = qis(*asked)
    assert (code, {row["node_id"]: row["similarity"] for row in json.loads(out)}) == (0, expected)
    code, out, _ = qis(*asked[:-2], "--threshold", 0.99)
    assert "similarity" in out
    assert out.count("\n") < 8


def test_threshold_and_definition_are_the_readers_where_it_names_them(url, sites):
    with RouterClient(url) as client:
        for threshold in (0.2, 0.9, 1.0):
            found = client.read("*", similar_to=similar(OWN, threshold, "near-latitude")).table
            assert told(found) == wanted(sites, threshold)
        everybody = client.read(HERE, similar_to=similar(OWN, 0.0)).table
        assert everybody.num_rows == 13 + 10  # who says nothing scores 0, and that is asked for
        some = client.read(HERE, columns=["similarity", "node_id"], limit=2, similar_to=similar(OWN)).table
        assert (some.schema.names, some.num_rows) == (["similarity", "node_id"], 2)
        few = client.read(HERE, filters=["node_id", "=", "aronson-1948"], similar_to=similar(OWN)).table
        assert few["node_id"].to_pylist() == ["aronson-1948"]
        odd = {**OWN, "place": "\ud800", "город": "é" * 400}  # what JSON can spell, and beside the definition's fields
        assert told(client.read(HERE, similar_to=similar(odd)).table) == wanted(sites)
        nothing = client.read("clinical.tuberculosis/other", similar_to=similar(OWN)).table
        assert (nothing.num_rows, nothing.schema.names[-1]) == (0, "similarity")


def test_flight_alone_is_enough(url, sites):
    """GetFlightInfo, GetSchema and DoGet as a client meets them that knows nothing of ours."""
    command = json.dumps({"v": 1, "address": HERE, "similar_to": {"context": OWN, "threshold": 0.5}}).encode()
    with flight.connect(url) as client:
        descriptor = flight.FlightDescriptor.for_command(command)
        info = client.get_flight_info(descriptor)
        assert info.schema.names[-1] == client.get_schema(descriptor).schema.names[-1] == "similarity"
        assert info.total_records == -1
        found = pa.concat_tables(client.do_get(one.ticket).read_all() for one in info.endpoints)
        assert told(found) == wanted(sites, 0.5)


def test_what_arrives_is_asked_for_alike(tmp_path, sites):
    command = json.dumps(
        {"v": 1, "address": HERE, "similar_to": {"context": OWN}, "columns": ["node_id", "similarity"]}
    )
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", similarity=shipped("similarity")) as router,
        RouterClient(router.url) as client,
        exchanging(router.url, command.encode()) as reader,
    ):
        client.deposit(sites.slice(0, 6))
        found = {}
        while len(found) < len(wanted(sites.slice(0, 6))):
            found |= told(message(reader)[0])
        assert found == wanted(sites.slice(0, 6))
        with client.transaction() as transaction:  # what is committed at once comes from the store
            transaction.deposit(sites.slice(6, 3))
        client.deposit(sites.slice(9))
        while len(found) < len(wanted(sites)):
            found |= told(message(reader)[0])
        assert found == wanted(sites)


def test_spark_asks_with_options(url, sites, spark):
    options = {"router": url, "address": HERE, "similarTo": json.dumps(OWN)}
    found = spark.read.format("qis").options(**options).load().select("node_id", "similarity").toArrow()
    assert told(found) == wanted(sites)
    narrow = spark.read.format("qis").options(**options, threshold="0.9").schema("node_id string, similarity double")
    assert told(narrow.load().toArrow()) == wanted(sites, 0.9)


@pytest.mark.parametrize(
    ("similar_to", "line"),
    [
        ("x", "request field 'similar_to': 'x' is not an object with a context"),
        ({}, "request field 'context': None is not a JSON object"),
        ({"context": []}, "request field 'context': [] is not a JSON object"),
        (
            {"context": {}, "treshold": 1},
            "request field 'similar_to': 'treshold' is not one of context,",
        ),
        ({"context": {}, "threshold": 1.1}, "request field 'threshold': 1.1 is not a number from 0 to 1"),
        ({"context": {}, "threshold": True}, "request field 'threshold': True is not a number"),
        ({"context": {}, "threshold": float("nan")}, "request field 'threshold': nan is not a number"),
        ({"context": {}, "definition": 7}, "request field 'definition': 7 is not a text"),
        ({"context": {"a": "x" * 2000}}, "request field 'context' is 2009 bytes long; at most 1024 are allowed"),
        (
            {"context": {}, "definition": "near-lattitude"},
            "similarity definition 'near-lattitude' is not known here; did you mean 'near-latitude'?; known:",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(url, similar_to, line):
    with RouterClient(url) as client, pytest.raises(QisError) as error:
        client.read(HERE, similar_to=similar_to)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["*", "clinical.*", "imaging.chest_ct/nodules"])
def test_an_address_of_no_one_domain_needs_the_definition_named(url, address):
    with (
        RouterClient(url) as client,
        pytest.raises(QisError, match=r"'definition' is missing: .*; known: near-lat"),
    ):
        client.read(address, similar_to=similar(OWN))


def test_columns_and_thresholds_need_somebody_to_be_similar_to(url, qis):
    with RouterClient(url) as client, pytest.raises(QisError, match="'similarity' is there where 'similar_to' says"):
        client.read(HERE, columns=["similarity"])
    code, _, err = qis("query", HERE, "--router", url, "--threshold", 0.5)
    assert (code, err) == (1, "qis: 'threshold' says how similar, and nothing says to what: give a context too\n")
    code, _, err = qis("query", HERE, "--router", url, "--similar-to", "{latitude: 44}")
    assert code == 1
    assert err.startswith("qis: --similar-to is not JSON")
    with qis_duckdb.connect() as connection, pytest.raises(Exception, match="threshold and definition need similar_to"):
        connection.execute("FROM qis_packets(?, ?, threshold := 0.5)", [url, HERE])


def test_a_router_tells_its_definitions_and_who_is_similar(url, sites):
    with RouterClient(url) as client:
        assert NEAR in client.definitions()
        found = client.similar(OWN, "near-latitude", 0.5)
        by_latitude = {
            context_of(text)["latitude"]: score for text, score in zip(*found.to_pydict().values(), strict=True)
        }
        assert sorted(by_latitude.values(), reverse=True) == found["score"].to_pylist()
        assert set(by_latitude.values()) == set(wanted(sites, 0.5).values())
        assert client.similar(OWN, "near-latitude", 0.0, limit=2).num_rows == 2


def test_two_definitions_of_one_name_and_a_folder_that_is_none_are_refused(tmp_path):
    write(tmp_path / "two", definition(domain="a"))
    write(tmp_path / "two", definition(domain="b"))
    with pytest.raises(QisError, match=r"b\.yaml: 'name': 't' is that of a\.yaml too"):
        Router(tmp_path / "store", "grpc://127.0.0.1:0", similarity=tmp_path / "two")
    with pytest.raises(QisError, match="is no folder of similarity definitions"):
        Router(tmp_path / "store", "grpc://127.0.0.1:0", similarity=tmp_path / "none")
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0") as router,
        RouterClient(router.url) as client,
        pytest.raises(QisError, match="known: none"),
    ):
        client.read(HERE, similar_to=similar(OWN))


def test_the_page_says_what_works(url, sites, qis, tmp_path):
    """Every block of docs/similarity.md but Spark's, whose options have a test of their own."""
    page = (shipped("similarity").parent / "docs" / "similarity.md").read_text(encoding="utf-8")
    blocks = [(kind, code.replace("grpc://127.0.0.1:8815", url)) for kind, code in BLOCK.findall(page)]
    assert [kind for kind, _ in blocks] == ["yaml", "python", "sh", "sql", "python", "python"]
    (tmp_path / "d.yaml").write_text(blocks[0][1], encoding="utf-8")
    assert load(tmp_path / "d.yaml").name == "near-latitude"
    code, out, _ = qis(*shlex.split(blocks[2][1])[1:], "--format", "json")
    assert (code, len(json.loads(out))) == (0, len(wanted(sites, 0.7)))
    with qis_duckdb.connect() as connection:
        assert len(connection.execute(blocks[3][1]).fetchall()) == len(wanted(sites))
    with (
        Node("n", url, domain="clinical.tuberculosis", problem_type="bcg_vaccine") as node,
        RouterClient(url) as client,
    ):
        exec(blocks[1][1], {"node": node, "client": client})
        found = {"node": node}
        exec(blocks[5][1].replace("...", "break"), found)
        assert set(found["packets"]["node_id"].to_pylist()) <= set(wanted(sites, 0.7))
