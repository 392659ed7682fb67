"""qis elect on a real packet table: forecasts are written once, by definitions that cannot change behind them."""

import json

import pyarrow as pa
import pytest
from any_elections import any_rows, table
from deltalake import DeltaTable
from meta_analysis import assert_alike
from test_answers import append

from pipelines.elections import record
from pipelines.elections.networks import NetworkError
from pipelines.elections.record import FORECASTS, elect, folder_of, newest
from qis_connectors.delta import PacketTableError, WriteConflictError
from qis_connectors.delta_appends import AppendOnlyTable

KIND = """
name: kind
version: 1
author: x
domain: test
threshold: 1.0
fields:
  kind: {kernel: exact}
"""


@pytest.fixture
def networks(tmp_path):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "kind.yaml").write_text(KIND, encoding="utf-8")
    return folder


def year(rounds, **more):
    return [row for row in any_rows(11, sites=6, rounds=8, **more) if row["time"] in rounds]


def packets_of(rows, label):
    """The rows as packets whose ids are not those of another label."""
    found = table(rows)
    ids = pa.array([f"{label} {one}" for one in found["packet_id"].to_pylist()])
    return found.set_column(found.column_names.index("packet_id"), "packet_id", ids)


def record_of(path):
    rows = AppendOnlyTable(folder_of(path) / "forecasts", FORECASTS).rows().to_pylist()
    return {(row["packet_id"], row["network"]): row for row in rows}


def test_a_forecast_once_written_stays_whatever_comes_in_late(tmp_path, networks):
    path = tmp_path / "packets"
    append(path, packets_of(year(range(4)), "first"))
    elect(path, networks)
    before = record_of(path)
    assert {row["replayed"] for row in before.values()} == {True}
    assert {row["table_version"] for row in before.values()} == {0}

    # Packets of next month, and some that say they are from long ago.
    late = [{**row, "y": 3.0, "node": f"late-{row['node']}"} for row in year([1])]
    append(path, pa.concat_tables([packets_of(year([4]), "second"), packets_of(late, "late")]))
    answers = elect(path, networks)
    after = record_of(path)
    assert {key: after[key] for key in before} == before
    added = [row for key, row in after.items() if key not in before]
    assert len(added) == 2 * (len(year([4])) + len(late))
    assert {row["replayed"] for row in added} == {False}
    rows = {row["network"]: row for row in answers["election"].to_pylist() if row["design"] == "in_time"}
    assert 0 < rows["kind"]["in_advance"] < rows["kind"]["forecasts"]
    assert rows["kind"]["in_advance"] == sum(row["mean"] is not None for row in added) / 2

    elect(path, networks)
    assert record_of(path) == after
    assert_alike(newest(path)["shares"].to_pylist(), elect(path, networks)["shares"].to_pylist())


def test_a_new_version_is_a_new_network_whose_forecasts_are_replayed(tmp_path, networks):
    path = tmp_path / "packets"
    append(path, packets_of(year(range(5)), "first"))
    elect(path, networks)
    (networks / "kind.yaml").write_text(KIND.replace("kind: {", "place: {"), encoding="utf-8")
    with pytest.raises(
        NetworkError, match=r"'kind' says something else than its version 1 did.*give it the next version"
    ):
        elect(path, networks)
    (networks / "kind.yaml").write_text(
        KIND.replace("kind: {", "place: {").replace("version: 1", "version: 2"), encoding="utf-8"
    )
    append(path, packets_of(year([6]), "second"))
    elect(path, networks)
    rows = AppendOnlyTable(folder_of(path) / "forecasts", FORECASTS).rows().to_pylist()
    assert {row["replayed"] for row in rows if row["network"] == "kind" and row["version"] == 2} == {True}
    assert {row["replayed"] for row in rows if row["network"] == "everyone" and "second" in row["packet_id"]} == {False}
    said = [
        json.loads(row["said"]) for row in DeltaTable(folder_of(path) / "definitions").to_pyarrow_table().to_pylist()
    ]
    assert sorted((one["name"], one["version"], *one["fields"]) for one in said) == [
        ("everyone", 1),
        ("kind", 1, "kind"),
        ("kind", 2, "place"),
    ]


def test_many_packets_have_fewer_controls(tmp_path, networks, monkeypatch):
    path = tmp_path / "packets"
    append(path, packets_of(year(range(4)), "first"))
    for many, controls in ((1000, 99), (10, 19)):
        monkeypatch.setattr(record, "MANY", many)
        shares = [row["shuffled"] for row in elect(path, networks)["election"].to_pylist() if row["shuffled"]]
        assert shares
        assert all(one * (controls + 1) == pytest.approx(round(one * (controls + 1))) for one in shares)
        assert len({row["shuffled_evidence"] for row in newest(path)["election"].to_pylist()}) == 1


def test_the_record_cannot_be_rewritten(tmp_path, networks):
    path = tmp_path / "packets"
    append(path, packets_of(year(range(4)), "first"))
    elect(path, networks)
    with pytest.raises(Exception, match="append-only"):
        DeltaTable(folder_of(path) / "forecasts").delete()
    first, second = (AppendOnlyTable(folder_of(path) / "forecasts", FORECASTS) for _ in range(2))
    first.append(first.rows().slice(0, 1))
    with pytest.raises(WriteConflictError, match="by somebody else just now"):
        second.append(first.rows().slice(0, 1))
    with pytest.raises(PacketTableError, match="has not the columns a, b"):
        AppendOnlyTable(folder_of(path) / "forecasts", pa.schema([("a", pa.string()), ("b", pa.string())]))


def test_the_command(qis, tmp_path, networks):
    path = tmp_path / "packets"
    append(path, packets_of(year(range(6)), "first"))
    status, out, err = qis("elect", "--table", path, "--networks", networks, "--format", "json")
    rows = json.loads(out)
    assert (status, err, [row["network"] for row in rows]) == (0, "", ["kind", "everyone"])
    assert "".join(qis("elect", "--table", path, "--networks", networks)[1].split()).count("everyone") >= 2
    status, out, err = qis("elect", "--table", path, "--format", "json")
    assert (status, json.loads(out)) == (0, [])
    assert "no network but everyone is for these packets" in err
    for arguments, said in (
        (("--table", tmp_path / "nowhere"), "no packet table"),
        (("--table", path, "--networks", tmp_path / "nowhere"), "is no folder of similarity definitions"),
    ):
        status, out, err = qis("elect", *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert said in err
