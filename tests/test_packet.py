"""The wire: fifteen published fields and ours, what is refused, how large a packet is, what its id is."""

import math
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qis_connectors.packet import (
    INTERCHANGE_SCHEMA,
    MAX_BYTES,
    MAX_BYTES_WITH_LIKELIHOOD,
    OUTCOME_PACKET_SCHEMA,
    SIZE_ROWS,
    PacketError,
    complete,
    conform,
    ipc_bytes,
    wire_bytes,
)

GOLDEN = Path(__file__).parent / "golden" / "packets.arrow"
ROW = {
    "node_id": "site-a",
    "timestamp_utc": -694_224_000_000,
    "domain": "clinical.tuberculosis",
    "problem_type": "bcg_vaccine",
    "model_architecture": "two_arm_comparison",
    "training_phase": "follow_up_14d",
    "metric_name": "log_risk_ratio",
    "metric_delta": -0.75,
    "metric_value": 0.125,
    "confidence": 0.875,
    "intervention_type": "bcg_vaccination",
    "intervention_params": '{"dose":1}',
    "outcome_decile": 5,
    "sample_count": 262,
    "raw_data_hash": "ab" * 32,
}
OURS = {
    "metric_stderr": 0.5,
    "context": '{"latitude":44,"stra\u00dfe":"\u6771\u4eac"}',
    "likelihood": [-1.5, 0.0, -2.5],
    "sequence": 7,
    "signature": b"\x00\xff",
    "key_id": "k1",
}


def batch(*rows, schema=INTERCHANGE_SCHEMA):
    return pa.RecordBatch.from_pylist(list(rows), schema=schema)


def test_fifteen_fields_are_accepted_and_completed():
    done = complete(batch(ROW))
    assert done.schema == OUTCOME_PACKET_SCHEMA
    (row,) = done.to_pylist()
    assert {name: row[name] for name in ROW} == ROW
    assert row["packet_id"] == complete(batch(ROW)).to_pylist()[0]["packet_id"]
    assert all(row[name] is None for name in OURS)


def test_a_completed_packet_passes_again_unchanged():
    done = complete(batch({**ROW, **OURS}, ROW, schema=OUTCOME_PACKET_SCHEMA))
    assert complete(done).equals(done)


def _alone(rows):
    """What `complete` says of each row by itself, where plain lists decide."""
    try:
        return [complete(batch(row, schema=OUTCOME_PACKET_SCHEMA)) for row in rows]
    except PacketError as error:
        return (error.field, error.reason)


@given(st.lists(st.deferred(lambda: PACKET), min_size=1, max_size=6), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_many_packets_are_completed_as_each_of_them_is(few, start):
    rows = [few[at % len(few)] for at in range(100)]
    together = complete(batch(*rows, schema=OUTCOME_PACKET_SCHEMA))
    assert together.equals(pa.concat_batches(_alone(rows)))
    part = batch(*rows, schema=OUTCOME_PACKET_SCHEMA).slice(start, 50)
    assert complete(part).equals(together.slice(start, 50))


@pytest.mark.parametrize("at", [0, 99])
def test_one_wrong_value_among_many_is_refused_as_if_it_were_alone(at):
    for field, value, reason in WRONG_VALUES:
        rows = [{**ROW, "timestamp_utc": number} for number in range(100)]
        rows[at] = {**ROW, field: value}
        with pytest.raises(PacketError) as refusal:
            complete(batch(*rows, schema=OUTCOME_PACKET_SCHEMA))
        assert (refusal.value.field, refusal.value.row) == (field, at)
        assert reason in str(refusal.value)
        assert _alone([rows[at]]) == (field, refusal.value.reason)


def test_an_empty_batch_is_a_batch():
    assert complete(batch()).num_rows == 0


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=12)
NAME = TEXT.filter(str.strip)
PACKET = st.fixed_dictionaries(
    {
        **dict.fromkeys(("node_id", "domain", "problem_type", "metric_name", "intervention_type"), NAME),
        **dict.fromkeys(("model_architecture", "training_phase", "raw_data_hash"), TEXT),
        "timestamp_utc": st.integers(-(2**63), 2**63 - 1),
        "metric_delta": FLOAT32,
        "metric_value": FLOAT32,
        "confidence": st.floats(0, 1, width=32),
        "intervention_params": st.just("{}"),
        "outcome_decile": st.integers(1, 10),
        "sample_count": st.integers(1, 2**31 - 1),
        "metric_stderr": st.none() | st.floats(0, exclude_min=True, allow_infinity=False, width=32),
        "context": st.none() | st.just('{"a":[1,{"b":null}]}'),
        "likelihood": st.none() | st.lists(FLOAT32, max_size=16),
        "sequence": st.none() | st.integers(0, 2**63 - 1),
        "signature": st.none() | st.binary(max_size=64),
        "key_id": st.none() | TEXT,
    }
)


@given(st.lists(PACKET, min_size=1, max_size=4))
def test_every_valid_packet_comes_back_as_it_was(rows):
    assume_utf8 = [row for row in rows if all(_encodable(value) for value in row.values())]
    done = complete(batch(*assume_utf8, schema=OUTCOME_PACKET_SCHEMA)).to_pylist()
    assert [{name: row[name] for name in given} for row, given in zip(done, assume_utf8, strict=True)] == assume_utf8


def _encodable(value):
    return not isinstance(value, str) or value.encode(errors="ignore").decode() == value


@given(PACKET)
def test_the_size_is_that_of_a_thousand_such_packets_on_the_wire(row):
    one = complete(batch(row, schema=OUTCOME_PACKET_SCHEMA))
    thousand = pa.Table.from_batches([one] * SIZE_ROWS).combine_chunks().to_batches()[0]
    (size,) = wire_bytes(one.to_pydict())
    # Validity bitmaps and buffer padding: less than a bit and a byte a column.
    assert abs(ipc_bytes(thousand) / SIZE_ROWS - size) < 5


def test_a_full_packet_fits_and_a_larger_one_is_refused_by_its_longest_field():
    room = MAX_BYTES - math.ceil(wire_bytes(complete(batch(ROW)).to_pydict())[0])
    complete(batch({**ROW, "model_architecture": ROW["model_architecture"] + "x" * room}))
    with pytest.raises(PacketError, match=r"^field 'model_architecture', row 1: is \d+ bytes long .* at most 512"):
        complete(batch(ROW, {**ROW, "model_architecture": ROW["model_architecture"] + "x" * (room + 1)}))


def test_a_likelihood_may_take_a_packet_to_640_bytes():
    long = {**ROW, "model_architecture": "x" * 190, "likelihood": [0.5] * 16}
    size = wire_bytes(complete(batch(long, schema=OUTCOME_PACKET_SCHEMA)).to_pydict())[0]
    assert MAX_BYTES < size <= MAX_BYTES_WITH_LIKELIHOOD
    with pytest.raises(PacketError, match=r"^field 'likelihood', row 0: .* at most 640"):
        complete(batch({**long, "likelihood": [0.5] * 90}, schema=OUTCOME_PACKET_SCHEMA))


WRONG_VALUES = [
    *((name, None, "is null") for name in INTERCHANGE_SCHEMA.names),
    *((name, " ", "is empty") for name in ("node_id", "domain", "problem_type", "metric_name", "intervention_type")),
    *((name, bad, "not a finite") for name in ("metric_delta", "metric_value") for bad in (math.nan, math.inf)),
    ("confidence", 1.2, "outside 0..1"),
    ("confidence", -0.1, "outside 0..1"),
    ("confidence", math.nan, "outside 0..1"),
    ("outcome_decile", 0, "outside 1..10"),
    ("outcome_decile", 11, "outside 1..10"),
    ("sample_count", 0, "at least 1"),
    ("metric_stderr", 0.0, "above 0"),
    ("metric_stderr", math.inf, "not a finite"),
    ("intervention_params", "{", "JSON object"),
    ("intervention_params", "[1]", "JSON object"),
    ("intervention_params", '{"a": NaN}', "JSON object"),
    ("intervention_params", '{"a":' * 30 + "1" + "}" * 29, "JSON object"),
    ("context", "null", "JSON object"),
    ("likelihood", [0.5, math.nan], "finite"),
    ("packet_id", "0" * 32, "hash"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_field_and_row(field, value, reason):
    with pytest.raises(PacketError) as refusal:
        complete(batch(ROW, {**ROW, field: value}, schema=OUTCOME_PACKET_SCHEMA))
    assert (refusal.value.field, refusal.value.row) == (field, 1)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_wrong_columns_are_refused_by_name():
    good = batch(ROW)
    wrong = {
        "domain": good.drop_columns(["domain"]),
        "zip_code": good.append_column("zip_code", pa.array([8000])),
        "confidence": good.set_column(9, "confidence", good.column("confidence").cast(pa.float64())),
        "node_id": good.select([1, 0, *range(2, 15)]),
        "metric_name": good.append_column("metric_name", good.column("metric_name")),
        "context": batch({**ROW, **OURS}, schema=OUTCOME_PACKET_SCHEMA).select([*range(15), 18, 17]),
        "problem_type": good.set_column(3, "problem_type", good.column("problem_type").dictionary_encode()),
    }
    for field, bad in wrong.items():
        with pytest.raises(PacketError) as refusal:
            complete(bad)
        assert refusal.value.field == field


def test_invalid_utf8_is_refused_before_anything_reads_it():
    good = batch(ROW)
    broken = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(PacketError, match="not a valid Arrow batch"):
        complete(good.set_column(0, "node_id", broken))


def test_every_field_but_the_travelling_ones_is_in_the_id():
    base = complete(batch({**ROW, **OURS}, schema=OUTCOME_PACKET_SCHEMA)).to_pylist()[0]
    other = {"string": "zz", "int64": 99, "float": 0.25, "int8": 2, "int32": 99, "list<item: float>": [0.5]}
    other["binary"] = b"zz"
    json_fields = {"intervention_params": "{}", "context": "{}"}
    for field in OUTCOME_PACKET_SCHEMA:
        if field.name == "packet_id":
            continue
        changed = {**base, "packet_id": None, field.name: json_fields.get(field.name, other[str(field.type)])}
        same = complete(batch(changed, schema=OUTCOME_PACKET_SCHEMA)).to_pylist()[0]["packet_id"] == base["packet_id"]
        assert same == (field.name in ("sequence", "signature", "key_id")), field.name


def test_text_cannot_move_between_fields_and_keep_the_id():
    ids = {
        complete(batch({**ROW, "model_architecture": left, "training_phase": right})).to_pylist()[0]["packet_id"]
        for left, right in (("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""))
    }
    assert len(ids) == 4


def test_minus_zero_is_zero():
    ids = {complete(batch({**ROW, "metric_delta": zero})).to_pylist()[0]["packet_id"] for zero in (0.0, -0.0)}
    assert len(ids) == 1


def test_the_golden_file_pins_the_wire():
    """Written once: if this fails, every packet out there has another id or another layout than this code's."""
    with pa.ipc.open_file(GOLDEN) as file:
        golden = file.read_all().combine_chunks().to_batches()[0]
    assert golden.schema == OUTCOME_PACKET_SCHEMA
    unidentified = golden.set_column(15, OUTCOME_PACKET_SCHEMA.field(15), pa.nulls(golden.num_rows, pa.string()))
    assert complete(unidentified).equals(golden)
    assert golden.equals(complete(batch({**ROW, **OURS}, ROW, schema=OUTCOME_PACKET_SCHEMA)))
    assert golden.column("packet_id").to_pylist() == [
        "a0c49c1d1d2dd9354ae7dab79660d38b",
        "87c492a3fd95eb4c59089cedd705f2b2",
    ]


def test_another_engines_types_conform_losslessly_or_are_refused_by_name():
    done = pa.Table.from_batches([complete(batch({**ROW, **OURS}, schema=OUTCOME_PACKET_SCHEMA))])
    wide = {"string": pa.large_string(), "float": pa.float64(), "int8": pa.int64(), "int32": pa.int64()}
    foreign = done.select(done.column_names[::-1]).cast(
        pa.schema([(f.name, wide.get(str(f.type), f.type)) for f in reversed(list(done.schema))])
    )
    assert conform(foreign).equals(done)
    with pytest.raises(PacketError, match="'outcome_decile'"):
        conform(foreign.set_column(foreign.column_names.index("outcome_decile"), "outcome_decile", pa.array([300])))
    with pytest.raises(PacketError, match="'domain': is missing"):
        conform(foreign.drop_columns(["domain"]))
    with pytest.raises(PacketError, match="'patient'"):
        conform(foreign.append_column("patient", pa.array([1])))
