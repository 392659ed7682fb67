"""The report's section on the election: what it says, and that without one nothing is there."""

import re

import pyarrow as pa
import pytest
from any_elections import any_rows, election, network, table
from test_report import Page, report

from pipelines.shares_plot import shares_plot
from qis_connectors.delta import PACKET_TABLE_SCHEMA


@pytest.fixture(scope="module")
def held():
    """Packets as the packet table holds them, and the election over them."""
    effects = table(any_rows(21, sites=6, rounds=8))
    with election(effects, network("kind-b", kind=None), network("own", node_id=None)) as (_, _, found):
        texts = {"domain": "test", "problem_type": "x"}
        columns = [
            effects[field.name].cast(field.type)
            if field.name in effects.column_names
            else pa.repeat(pa.scalar(texts.get(field.name), field.type), effects.num_rows)
            for field in PACKET_TABLE_SCHEMA
        ]
        return pa.table(columns, schema=PACKET_TABLE_SCHEMA), found


def test_every_network_is_shown_with_its_losses(held, tmp_path):
    packets, found = held
    page = report(packets, tmp_path / "report.html", elections=found, plots=tmp_path / "plots")
    text = Page(page).text
    assert "The election of networks" in text
    rows = found["election"].to_pylist()
    assert len(rows) == 3
    for row in rows:
        assert row["network"] in text
        assert row["verdict"] in text
        assert f"{row['score']:.4f}" in text
        assert f"{row['gain']:.4f}" in text
    (regret,) = {row["regret"] for row in found["shares"].to_pylist() if row["round"] == 7}
    assert f"has cost {regret:.2f}" in re.sub(r"\s+", " ", text)
    assert {"shares.svg", "shares.png"} <= {path.name for path in (tmp_path / "plots").iterdir()}


def test_without_an_election_nothing_is_said(held, tmp_path):
    packets, _ = held
    assert "election" not in report(packets, tmp_path / "report.html")


def test_the_lines_of_the_plot_are_the_shares(held):
    _, found = held
    axes = shares_plot(found["shares"]).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert list(lines) == ["everyone", "kind-b", "own"]
    for name, line in lines.items():
        rows = [row for row in found["shares"].to_pylist() if row["network"] == name]
        assert line == [pytest.approx(1 / 3), *(row["share_after"] for row in rows)]
