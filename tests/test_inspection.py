"""The gate, counted again behind each packet: its own site, stratum and period."""

from datetime import date

import polars as pl
import pytest
import yaml

from pipelines.distill import releases
from pipelines.inspection import gate
from pipelines.study import load

STUDY = {
    "study": "wards",
    "domain": "clinical.wards",
    "problem_type": "falls",
    "rows": "rows.parquet",
    "site_column": "hospital",
    "arms": {"column": "treated", "treated": True, "control": False},
    "outcome": {"kind": "binary", "column": "fell", "event": True, "better": "lower"},
    "effect": "log_risk_ratio",
    "intervention": {"type": "mats"},
    "strata": ["sex"],
    "time": "day",
    "period": "month",
}
CELLS = {("a", "f", 1): 20, ("a", "m", 1): 20, ("a", "f", 2): 4, ("b", "f", 1): 20, ("b", "m", 1): 4}
"""Hospital, sex and month -> rows in each of the four cells."""


@pytest.fixture
def study(tmp_path):
    rows = [
        {"hospital": hospital, "sex": sex, "day": date(2024, month, 1 + at % 28), "treated": treated, "fell": fell}
        for (hospital, sex, month), count in CELLS.items()
        for treated in (True, False)
        for fell in (True, False)
        # Unlike counts, which one table alone explains no better than others.
        for at in range(count + 3 * treated + 7 * fell * (count > 4))
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    return load(tmp_path / "study.yaml")


def test_a_packet_is_held_against_the_rows_behind_it_and_no_others(study, tmp_path):
    sent = {site: release for _, release in releases(study, tmp_path) for site in [release.site]}
    assert [(site, release.packets.num_rows, len(release.kept_back)) for site, release in sent.items()] == [
        ("a", 2, 1),
        ("b", 1, 1),
    ]
    rows = tmp_path / "rows.parquet"
    for release in sent.values():
        (finding,) = gate(study, rows, release.packets)
        assert (finding.places, finding.wrong) == (4 * release.packets.num_rows, 0)
    loose = study.model_copy(
        update={
            "gate": study.gate.model_copy(update={"min_cell": 1, "per_number": 1}),
            "linter": study.linter.model_copy(update={"too_few": "send"}),
        }
    )
    for _, release in releases(loose, tmp_path):
        (finding,) = gate(study, rows, release.packets)
        assert finding.wrong == 4


def test_means_in_their_own_unit_and_packets_of_many_periods_meet_the_expectations(tmp_path):
    from dagster_project.checks.expectations import meet_expectations

    study = {**STUDY, "period": "quarter", "strata": [], "site": "a", "effect": "mean_difference"}
    del study["site_column"]
    study["outcome"] = {"kind": "continuous", "column": "grams", "better": "higher"}
    rows = [
        {"day": date(2024, month, 1 + at % 28), "treated": treated, "grams": 3000.0 + 50 * treated + at % 97}
        for month in (1, 5)
        for treated in (True, False)
        for at in range(120)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    loaded = load(tmp_path / "study.yaml")
    ((_, release),) = releases(loaded, tmp_path)
    assert release.packets["training_phase"].to_pylist() == ["2024-Q1", "2024-Q2"]
    assert min(release.packets["metric_delta"].to_pylist()) > 40
    assert not [finding for finding in meet_expectations(release.packets, loaded, "a") if finding.wrong]
