"""Answers over a real packet table: any past one again, and what is kept is what would be computed from scratch."""

import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from meta_analysis import assert_alike, packets

from pipelines import kept
from pipelines.answers import answers_from, moment
from pipelines.engine import EngineError, spark_is_here
from pipelines.kept import kept_answers
from pipelines.synthesize import answers
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable, PacketTableError
from qis_connectors.errors import QisError


def append(path, rows, source="router"):
    """The rows with all fields of the packet table, as one more version of it."""
    fields = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in PACKET_TABLE_SCHEMA
    ]
    full = pa.Table.from_arrays(fields, schema=PACKET_TABLE_SCHEMA)
    at = full.column_names.index("domain")
    full = full.set_column(at, "domain", pa.array([a.split("/")[0] for a in rows["address"].to_pylist()]))
    snapshot = PacketTable(path, create=True)
    snapshot.append(full, source, (snapshot.version or 0) + 1)


def at(address, number, **more):
    effects = [(0.1 * n + 0.01 * number, 0.1 + 0.01 * n) for n in range(4)]
    return packets(effects, address=address, contexts=[{"x": n, "kind": "ab"[n % 2]} for n in range(4)], **more)


def later(address):
    rows = packets([(5.0, 0.2)], address=address, times=[100])
    return rows.set_column(rows.column_names.index("packet_id"), "packet_id", pa.array([f"{address} later"]))


@pytest.fixture
def table(tmp_path):
    """A table of three addresses; the second version adds to one of them."""
    path = tmp_path / "packets"
    append(path, pa.concat_tables([at("b/x", 1), at("a/x", 2), at("c/x", 3)]))
    append(path, later("b/x"))
    return path


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert found[name].schema == rows.schema, name
        assert_alike(found[name].to_pylist(), rows.to_pylist())


def test_any_past_answer_again(table):
    newest = answers_from(table, ["pooled"])["pooled"]
    first = answers_from(table, ["pooled"], as_of=0)["pooled"]
    assert {row["address"]: row["k"] for row in first.to_pylist()} == {"a/x": 4, "b/x": 4, "c/x": 4}
    assert {row["address"]: row["k"] for row in newest.to_pylist()} == {"a/x": 4, "b/x": 5, "c/x": 4}
    for now in (1, datetime.now(UTC)):
        assert_same(answers_from(table, ["pooled"], as_of=now), {"pooled": newest})
    with pytest.raises(PacketTableError, match="has versions 0 to 1, not 2"):
        answers_from(table, ["pooled"], as_of=2)


def test_as_of_a_time(tmp_path):
    append(tmp_path / "packets", at("a/x", 1))
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    append(tmp_path / "packets", later("a/x"))
    (row, *_) = answers_from(tmp_path / "packets", ["pooled"], as_of=between)["pooled"].to_pylist()
    assert row["k"] == 4


def test_what_as_of_may_be():
    assert moment("7") == 7
    assert moment("2026-01-31") == datetime(2026, 1, 31)
    with pytest.raises(QisError, match="'yesterday' is neither a version"):
        moment("yesterday")


def test_only_addresses_with_new_packets_are_computed_again(table, tmp_path, monkeypatch):
    asked = []
    over = kept.answers_over
    monkeypatch.setattr(kept, "answers_over", lambda *given: asked.append(given[3]) or over(*given))
    folder = tmp_path / "kept"
    for added in (None, "c/x", "new/y", None):
        if added:
            append(table, later(added))
        assert_same(kept_answers(table, folder), answers_from(table))
    # From scratch, then one address at a time, and nothing where nothing is new.
    assert asked == [None, ["c/x"], ["new/y"]]
    append(table, later("a/x"))
    assert_same(kept_answers(table, folder, ["pooled"]), answers_from(table, ["pooled"]))
    append(table, at("d/x", 1))
    assert_same(kept_answers(table, folder), answers_from(table))
    assert asked[3:] == [["a/x"], ["a/x", "d/x"], ["d/x"]] or asked[3:] == [["a/x"], ["d/x"], ["a/x", "d/x"]]


def test_what_cannot_be_followed_is_computed_from_scratch(table, tmp_path):
    folder = tmp_path / "kept"
    kept_answers(table, folder, ["pooled"])
    DeltaTable(table).optimize.compact()
    assert PacketTable(table).addresses_since(1) is None
    assert_same(kept_answers(table, folder, ["pooled"]), answers_from(table, ["pooled"]))
    other = tmp_path / "other"
    append(other, at("z/x", 1))
    assert_same(kept_answers(other, folder, ["pooled"]), answers_from(other, ["pooled"]))
    (folder / "sites.parquet").write_bytes((folder / "pooled.parquet").read_bytes())
    assert_same(kept_answers(other, folder, ["sites"]), answers_from(other, ["sites"]))


@pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))
def test_spark_reads_the_same_table(table):
    wanted = answers_from(table, ["sites"])
    found = answers_from(table, ["sites"], "spark")
    for name, rows in wanted.items():
        assert_alike(found[name].to_pylist(), rows.to_pylist())


def test_without_spark_one_line_says_so(table, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    from pipelines import engine

    engine._java_version.cache_clear()
    try:
        with pytest.raises(EngineError, match=r"^engine spark: Java 17 or newer was not found; --engine duckdb works"):
            answers_from(table, ["sites"], "spark")
    finally:
        monkeypatch.undo()
        engine._java_version.cache_clear()
    assert "pooled" in answers()
