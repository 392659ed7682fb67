"""Kernels against values computed by hand."""

from math import exp

import pytest

from pipelines.shipped import shipped
from qis_connectors.similarity import Definition, SimilarityError, load

FIELDS = {
    "latitude": {"kernel": "numeric", "scale": 10, "weight": 2},
    "place": {"kernel": "path"},
    "kind": {"kernel": "category", "alike": [["teaching", "university", 0.8]]},
    "allocation": {"kernel": "exact"},
}


def definition(**fields):
    kept = {name: FIELDS[name] for name in fields} if fields else FIELDS
    return Definition.model_validate(
        {"name": "t", "version": 1, "author": "x", "domain": "d", "threshold": 0.5, "fields": kept}
    )


@pytest.mark.parametrize(
    ("name", "own", "other", "score"),
    [
        ("latitude", 40, 40.0, 1.0),
        ("latitude", 40, 50, exp(-0.5)),
        ("latitude", 40, 20, exp(-2)),
        ("latitude", 40, None, 0.0),
        ("latitude", None, 40, 0.0),
        ("latitude", 1, True, 0.0),
        ("latitude", 40, "40", 0.0),
        ("place", "eu/de/berlin", "eu/de/bonn", 2 / 3),
        ("place", "eu/de", "eu/de/bonn", 2 / 3),
        ("place", "eu", "us", 0.0),
        ("place", "eu", 3, 0.0),
        ("kind", "teaching", "university", 0.8),
        ("kind", "university", "teaching", 0.8),
        ("kind", "teaching", "teaching", 1.0),
        ("kind", "teaching", "rural", 0.0),
        ("allocation", "random", "random", 1.0),
        ("allocation", "random", "Random", 0.0),
        ("allocation", {"a": 1}, {"a": 1}, 1.0),
    ],
)
def test_a_kernel_is_what_its_formula_says(name, own, other, score):
    one = definition(**{name: None})
    context = {} if other is None else {name: other}
    assert one.scores({} if own is None else {name: own}, one.encode([context]))[0] == pytest.approx(score, abs=1e-15)


def test_a_score_is_the_weighted_mean_and_what_is_missing_keeps_its_weight():
    whole = definition()
    own = {"latitude": 40, "place": "eu/de", "kind": "teaching", "allocation": "random"}
    others = [own, {**own, "latitude": 50, "kind": "university"}, {"latitude": 40}, {}, {"unknown": 1}]
    wanted = [1.0, (2 * exp(-0.5) + 1 + 0.8 + 1) / 5, 2 / 5, 0.0, 0.0]
    assert whole.scores(own, whole.encode(others)).tolist() == pytest.approx(wanted, abs=1e-15)


def test_the_definitions_that_are_shipped_can_be_read():
    files = sorted(shipped("similarity").glob("*.yaml"))
    assert files
    for path in files:
        assert path.stem == load(path).domain


def test_a_wrong_definition_is_one_line_that_names_file_and_field(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("name: x\nversion: 1\nauthor: y\ndomain: d\nthreshold: 2\nfields: {}\n", encoding="utf-8")
    with pytest.raises(SimilarityError, match=r"d\.yaml: 'threshold': .*less than or equal to 1"):
        load(path)
