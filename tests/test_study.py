"""A study file is right, or one line says where it is wrong and what to write."""

from pathlib import Path

import pytest

from pipelines.shipped import shipped
from pipelines.study import StudyError, load

GOOD = shipped("data/bcg.yaml").read_text(encoding="utf-8")


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_study_loads_and_says_why_its_gate_is_low(tmp_path):
    study = load(write(tmp_path, GOOD))
    assert study.columns == ("vaccinated", "tuberculosis", "latitude", "allocation", "year")
    assert study.gate.min_cell == 3
    assert "published" in study.gate.why


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("domain:", "domian:", 3, "'domian' is not a field of a study; did you mean 'domain'?"),
        ("control: false", "contrl: false", 9, "did you mean 'control'?"),
        ("effect: log_risk_ratio", "effect: log_risk_ration", 11, "did you mean 'log_risk_ratio'?"),
        ("better: lower", "better: down", 10, "'lower' or 'higher'"),
        ("time: year", "", 1, "'time' is missing"),
        ("min_cell: 3", "min_cell: 0", 24, "greater than or equal to 1"),
        ("min_cell: 3", "min_cell: three", 24, "valid integer"),
        ("  why:", "  # why:", 18, "needs a reason"),
        ("rows: sites/{site}/rows.parquet", "rows: rows.parquet", 1, "{site}"),
        ("study: bcg", "study: [bcg", 2, "not YAML"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path, old, new, line, said):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(StudyError) as error:
        load(path)
    text = str(error.value)
    assert said in text
    assert "\n" not in text
    assert text.startswith((f"{path}:{line}:", f"{path}:{line + 1}:"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "bcg"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(StudyError, match="mapping"):
        load(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")


def test_sites_are_the_files_there_are(tmp_path):
    study = load(write(tmp_path, GOOD))
    with pytest.raises(StudyError, match="no rows at"):
        study.row_files(tmp_path)
    for site in ("b", "a"):
        (tmp_path / "sites" / site).mkdir(parents=True)
        (tmp_path / "sites" / site / "rows.parquet").touch()
    assert list(study.row_files(tmp_path)) == ["a", "b"]


def test_one_site_may_be_named_in_its_own_file(tmp_path):
    text = GOOD.replace("rows: sites/{site}/rows.parquet", "site: clinic-7\nrows: mine.csv")
    (tmp_path / "mine.csv").touch()
    assert load(write(tmp_path, text)).row_files(tmp_path) == {"clinic-7": tmp_path / "mine.csv"}
