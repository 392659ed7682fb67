"""Filters: the same rows as SQL's WHERE keeps, refusals by name, and no byte sent for what is not kept."""

import json
import sys

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

from qis_connectors import Node, QisError
from qis_connectors.client import RouterClient
from qis_connectors.filters import MAX_DEPTH, MAX_TERMS, FilterError, columns, keep, parse
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.router import Router

HERE = "clinical.tuberculosis/bcg_vaccine"
COMPARISONS = ["=", "!=", "<", "<=", ">", ">="]
VALUES = {
    "metric_name": ["", "a", "val_auc", "Z", "é", "🏥"],
    "context": ["{}", "a", "{"],
    "metric_stderr": [0.1, 0.5, -0.0, 0.0, 0.10000000149011612, 3, 1e300, -1e-300],
    "metric_delta": [0.1, -0.5, 0.0, -0.0, 1, 16777217],
    "outcome_decile": [1, 5, 10, 300, -(2**63)],
    "sample_count": [1, 262, 2**31, 2**63 - 1],
    "sequence": [0, -1, 2**53 + 1, 2**63 - 1],
}
TYPES = {name: OUTCOME_PACKET_SCHEMA.field(name).type for name in (*VALUES, "signature", "likelihood")}


def fits(value, kind):
    try:
        return pa.array([value], kind)[0].as_py() is not None
    except (pa.ArrowException, OverflowError):
        return False


rows = st.lists(
    st.fixed_dictionaries(
        {
            **{
                name: st.none() | st.sampled_from([value for value in values if fits(value, TYPES[name])])
                for name, values in VALUES.items()
            },
            "signature": st.none() | st.just(b"\x00"),
            "likelihood": st.none() | st.just([1.0]),
        }
    ),
    max_size=12,
)
conditions = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.one_of(
        st.tuples(st.just(name), st.sampled_from(COMPARISONS), st.sampled_from(VALUES[name])),
        st.tuples(st.just(name), st.just("in"), st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=3)),
    )
) | st.tuples(st.sampled_from(sorted(TYPES)), st.sampled_from(["is null", "is not null"]))
trees = st.recursive(
    conditions.map(list),
    lambda terms: st.builds(
        lambda joint, some: {joint: some}, st.sampled_from(["and", "or"]), st.lists(terms, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def sql(tree, arguments):
    """The same predicate as SQL text, its values appended to `arguments`."""
    if isinstance(tree, dict):
        ((joint, terms),) = tree.items()
        return "(" + f" {joint} ".join(sql(term, arguments) for term in terms) + ")"
    name, operator, *values = tree
    kind = {pa.float32(): "DOUBLE", pa.string(): "VARCHAR"}.get(TYPES[name], "BIGINT")
    if not values:
        return f"{name} {operator}"
    given = values[0] if operator == "in" else values
    arguments.extend(given)
    marks = ", ".join(f"CAST(? AS {kind})" for _ in given)
    return f"CAST({name} AS {kind}) {operator} " + (f"({marks})" if operator == "in" else marks)


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows, trees)
def test_the_mask_is_what_sql_keeps(database, rows, tree):
    schema = pa.schema([*TYPES.items(), ("position", pa.int64())])
    table = pa.Table.from_pylist([{**row, "position": at} for at, row in enumerate(rows)], schema=schema)
    batch = table.combine_chunks().to_batches()[0] if rows else pa.RecordBatch.from_pylist([], schema=schema)
    where = parse(json.loads(json.dumps(tree)))
    arguments = []
    text = sql(tree, arguments)
    database.register("packets", table)
    kept = database.execute(f"SELECT position FROM packets WHERE {text} ORDER BY position", arguments).fetchall()
    mask = keep(where, batch)
    assert mask.null_count == 0
    assert batch["position"].filter(mask).to_pylist() == [position for (position,) in kept]
    assert columns(where) <= set(TYPES)


def nested(depth):
    return ["context", "is null"] if depth == 0 else {"and": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ("a = 1", "request field 'filters': 'a = 1' is neither [field, operator, value] nor"),
        ([], "request field 'filters': [] is neither"),
        ({}, "request field 'filters': a group has one name, and or or; this one has 'none'"),
        (
            {"not": [["context", "is null"]]},
            "request field 'filters': a group has one name, and or or; this one has 'not'",
        ),
        ({"and": []}, "request field 'filters.and': is not a list of conditions"),
        ({"or": "x"}, "request field 'filters.or': is not a list of conditions"),
        (["auc", "=", 1], "request field 'filters': 'auc' is not a field of a packet"),
        ([["a"], "=", 1], "request field 'filters': ['a'] is not a field of a packet"),
        (["context"], "request field 'filters (context)': None is not an operator; there are =, !=, <,"),
        (["context", "not in", ["a"]], "request field 'filters (context)': 'not in' is not an operator"),
        (["context", {}, 1], "request field 'filters (context)': {} is not an operator"),
        (["context", "is null", 1], "request field 'filters (context)': 'is null' takes no value, not 1"),
        (["context", "="], "request field 'filters (context)': '=' takes one value, not 0"),
        (["context", "=", None], "request field 'filters (context)': null compares with nothing; write 'is null'"),
        (["context", "=", 7], "request field 'filters (context)': 7 is not a text"),
        (["context", "=", "\ud800"], "request field 'filters (context)': '\\ud800' is not a text"),
        (["sample_count", ">", 1.5], "request field 'filters (sample_count)': 1.5 is not a whole number of 64 bits"),
        (["sample_count", ">", True], "request field 'filters (sample_count)': True is not a whole number of 64 bits"),
        (["sample_count", ">", 2**63], "request field 'filters (sample_count)': 9223372036854775808 is not a whole"),
        (["confidence", "<", float("nan")], "request field 'filters (confidence)': nan is not a finite number"),
        (["confidence", "<", float("inf")], "request field 'filters (confidence)': inf is not a finite number"),
        (["confidence", "<", 10**400], "request field 'filters (confidence)': 1000"),
        (["confidence", "<", True], "request field 'filters (confidence)': True is not a finite number"),
        (["confidence", "<", "0.5"], "request field 'filters (confidence)': '0.5' is not a finite number"),
        (["confidence", "in", 0.5], "request field 'filters (confidence)': 0.5 is not a list of values"),
        (["confidence", "in", []], "request field 'filters (confidence)': [] is not a list of values"),
        (["signature", "=", "x"], "request field 'filters (signature)': a binary field knows 'is null' and"),
        (["likelihood", "=", 1], "request field 'filters (likelihood)': a list<item: float> field knows"),
        (
            {"and": [["context", "is null"], {"or": [["sequence", "=", "x"]]}]},
            "request field 'filters.and[1].or[0] (sequence)': 'x' is not a whole number of 64 bits",
        ),
        (nested(MAX_DEPTH + 1), "request field 'filters': has more than 16 groups within one another"),
        (
            {"or": [["context", "is null"]] * MAX_TERMS},
            "request field 'filters': has more than 256 conditions and groups",
        ),
    ],
)
def test_what_is_no_filter_is_refused_by_name(tree, line):
    with pytest.raises(FilterError) as error:
        parse(tree)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_the_largest_filters_are_taken():
    parse(nested(MAX_DEPTH))
    parse({"or": [["context", "is null"]] * (MAX_TERMS - 1)})
    assert parse(["confidence", "<", sys.float_info.max]).values == (sys.float_info.max,)


@pytest.fixture(scope="module")
def client(tmp_path_factory, packets):
    """Of a router with 4,000 packets at each of two addresses, one in a hundred of sample_count 7."""
    with Router(tmp_path_factory.mktemp("router"), "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        for problem_type in ("bcg_vaccine", "other"):
            for start in range(0, 4000, 500):
                table = packets(500, start, problem_type=problem_type)
                counts = [7 if at % 100 == 0 else 1000 + at for at in range(500)]
                at = table.schema.get_field_index("sample_count")
                client.deposit(table.set_column(at, "sample_count", pa.array(counts, pa.int32())))
        yield client


SEVEN = ["sample_count", "=", 7]


def bytes_sent(client, request):
    """Of the Arrow messages of one DoGet, without the schema."""
    with flight.connect(client.url) as plain:
        total = 0
        for chunk in plain.do_get(flight.Ticket(json.dumps({"v": 1, **request}))):
            total += pa.ipc.get_record_batch_size(chunk.data)
        return total


@pytest.mark.parametrize("address", [HERE, "clinical.*"])
def test_a_filter_that_keeps_one_percent_sends_one_percent(client, address):
    everything = bytes_sent(client, {"address": address})
    kept = bytes_sent(client, {"address": address, "filters": SEVEN})
    narrow = bytes_sent(client, {"address": address, "filters": SEVEN, "columns": ["node_id"]})
    assert client.read(address, filters=SEVEN).table.num_rows * 100 == client.read(address).table.num_rows
    assert kept < 0.02 * everything
    assert narrow < 0.1 * kept + 1000


@pytest.mark.parametrize("address", [HERE, "clinical.*"])
def test_cursor_and_limit_count_what_is_kept_and_pass_what_is_not(client, address):
    whole = client.read(address, columns=["timestamp_utc", "sample_count"])
    expected = [row["timestamp_utc"] for row in whole.table.to_pylist() if row["sample_count"] == 7]
    found, since, pages = [], 0, 0
    while True:
        page = client.read(address, since=since, columns=["timestamp_utc"], filters=SEVEN, limit=7)
        found += page.table["timestamp_utc"].to_pylist()
        since, pages = page.cursor, pages + 1
        if page.table.num_rows < 7:
            break
    assert (found, since, pages) == (expected, 8000, len(expected) // 7 + 1)
    assert client.read(address, filters=["sample_count", "=", 8]).cursor == 8000


def test_until_is_inclusive(client):
    (first,) = client.read(HERE, filters=SEVEN, limit=1, columns=["node_id"]).table.to_pylist()
    assert first == {"node_id": "site-a"}
    with flight.connect(client.url) as plain:
        ticket = flight.Ticket(b'{"v":1,"address":"clinical.*","since":100,"until":103,"columns":["timestamp_utc"]}')
        chunks = [
            (chunk.data.num_rows, json.loads(chunk.app_metadata.to_pybytes())["cursor"])
            for chunk in plain.do_get(ticket)
        ]
    assert chunks == [(3, 103)]


def test_a_filter_through_node_and_its_refusals(client):
    with Node("site-b", client.url, domain="clinical.tuberculosis", problem_type="bcg_vaccine") as node:
        assert node.query(filters={"or": [SEVEN, ["context", "is not null"]]}, columns=["node_id"]).num_rows == 40
        with pytest.raises(
            QisError, match=r"^request field 'filters \(sample_count\)': '7' is not a whole number of 64 b"
        ):
            node.query(filters=["sample_count", "=", "7"])
        with pytest.raises(QisError, match=r"^request is not JSON: .*bytes"):
            node.query(filters=["signature", "=", b"\x00"])
