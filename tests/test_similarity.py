"""Kernels against values computed by hand, whatever a context may hold, and the mistakes of a definition."""

import json
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from similar_sites import MANY, definition, write

from pipelines.catalogue import SIMILARITY_SCHEMA, similarity_schema
from pipelines.shipped import shipped
from qis_connectors.kernels import LEVELS
from qis_connectors.similarity import Definitions, SimilarityError, context_of, load


def only(*names):
    return definition({name: MANY[name] for name in names})


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
    one = only(name)
    context = {} if other is None else {name: other}
    assert one.scores({} if own is None else {name: own}, one.encode([context]))[0] == pytest.approx(score, abs=1e-15)


def test_a_score_is_the_weighted_mean_and_what_is_missing_keeps_its_weight():
    whole = definition()
    own = {"latitude": 40, "place": "eu/de", "kind": "teaching", "allocation": "random"}
    others = [own, {**own, "latitude": 50, "kind": "university"}, {"latitude": 40}, {}, {"unknown": 1}]
    wanted = [1.0, (2 * exp(-0.5) + 1 + 0.8 + 1) / 5, 2 / 5, 0.0, 0.0]
    assert whole.scores(own, whole.encode(others)).tolist() == pytest.approx(wanted, abs=1e-15)


def test_the_definitions_that_are_shipped_can_be_read_and_each_domain_has_its_own():
    found = Definitions.read(shipped("similarity"))
    assert len(found.by_name) >= 3
    for one in found.by_name.values():
        own = found.of_domain(one.domain)
        assert own is not None
        assert own.domain == one.domain


def test_the_schema_that_editors_read_is_the_one_that_counts():
    written = shipped("similarity").parent / SIMILARITY_SCHEMA
    assert written.read_text(encoding="utf-8") == similarity_schema(), "make docs"


GOOD = shipped("similarity/clinical.tuberculosis.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("threshold: 0.6", "threshold: 2", 6, "'threshold': Input should be less than or equal to 1"),
        ("threshold: 0.6", "treshold: 0.6", 6, "'treshold' is not a field of a similarity definition; did you mean"),
        ("threshold: 0.6", "", 1, "'threshold' is missing"),
        ("kernel: numeric", "kernel: numerc", 8, "'numerc' is not one of exact, path, category, numeric; did you mean"),
        ("kernel: numeric, ", "", 8, "'fields.latitude' has no 'kernel'"),
        (
            "scale: 10",
            "sclae: 10",
            8,
            "'fields.latitude.sclae' is not a field of the kernel numeric; did you mean 'scale'",
        ),
        ("numeric, scale: 10", "category, alike: [[a, b]]", 8, "'fields.latitude.alike.0.2' is missing"),
        ("scale: 10", "scale: 0", 8, "'fields.latitude.scale': Input should be greater than 0"),
        ("scale: 10", "scale: 10, weight: .inf", 8, "'fields.latitude.weight': Input should be a finite number"),
        ("name: near-latitude", "name: Near Latitude", 2, "'name': String should match pattern"),
        ("version: 1", "version: [", 5, "not YAML"),
        (GOOD, "- a", 1, "a similarity definition is a mapping"),
    ],
)
def test_a_wrong_definition_is_one_line_that_names_file_line_and_field(tmp_path, old, new, line, said):
    assert old in GOOD
    path = tmp_path / "d.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(SimilarityError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


HOSTILE = [
    *(10**400, -(10**400), 1e308, -1e308, float("inf"), float("nan"), True, None, "", "/", "//", "\ud800"),
    *("/".join("a" * 300), ["x"] * 3, {"a": {"b": []}}, {"a": {1, 2}}, {1: object()}, 5 * [{}], "NaN"),
]


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [*HOSTILE, deep(100_000)], ids=lambda value: f"{type(value).__name__}")
def test_whatever_a_context_holds_it_has_a_score(value):
    one = definition()
    others = [dict.fromkeys(MANY, other) for other in [*HOSTILE, "teaching", 40]]
    scores = one.scores(dict.fromkeys(MANY, value), one.encode(others))
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_same_is_what_json_says_is_the_same():
    one = only("allocation")
    values = [1, 1.0, True, "1", [1], {"a": 1, "b": 2}, {"b": 2, "a": 1}]
    encoded = one.encode([{"allocation": value} for value in values])
    table = [one.scores({"allocation": value}, encoded).tolist() for value in values]
    same = {(0, 1), (5, 6)}
    for at, row in enumerate(table):
        for other, score in enumerate(row):
            assert score == float(at == other or (min(at, other), max(at, other)) in same), (at, other)


def test_paths_longer_than_what_is_compared_at_once():
    one = only("place")
    long = [str(at) for at in range(3 * LEVELS)]
    others = ["/".join(long[:end]) for end in (1, LEVELS, LEVELS + 1, 3 * LEVELS)]
    others += ["/".join([*long[: LEVELS + 2], "x"]), "x/" + "/".join(long)]
    wanted = [1, LEVELS, LEVELS + 1, 3 * LEVELS, LEVELS + 2, 0]
    scores = one.scores({"place": "/".join(long)}, one.encode([{"place": other} for other in others]))
    lengths = [3 * LEVELS] * 5 + [3 * LEVELS + 1]
    assert scores.tolist() == [common / length for common, length in zip(wanted, lengths, strict=True)]


CONTEXTS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "latitude": st.one_of(st.floats(allow_nan=False), st.integers(), st.text("4e.", max_size=3)),
            "place": st.one_of(st.text("ab/", max_size=9), st.integers()),
            "kind": st.one_of(st.sampled_from(["teaching", "university", "rural"]), st.booleans()),
            "allocation": st.recursive(
                st.none() | st.text("ab", max_size=2), lambda inner: st.lists(inner, max_size=2)
            ),
        },
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(CONTEXTS, st.integers(0, 11))
def test_scores_are_symmetric_bounded_and_the_same_however_they_are_asked_for(contexts, at):
    one = definition()
    contexts = [json.loads(json.dumps(context)) for context in contexts]
    own = contexts[at % len(contexts)]
    encoded = one.encode(contexts)
    scores = one.scores(own, encoded)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.max() == scores[at % len(contexts)] == one.best_score(own)
    for row, other in enumerate(contexts):
        assert one.scores(other, one.encode([own]))[0] == scores[row]
    rows = np.arange(len(contexts))[::-1]
    assert one.scores(own, encoded, rows).tolist() == scores[rows].tolist()
    bit_by_bit = one.encode([])
    for context in contexts:
        bit_by_bit.add([context])
    assert one.scores(own, bit_by_bit).tolist() == scores.tolist()


@pytest.mark.parametrize("text", ["", None, "x", "[1]", "{", "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "7"])
def test_what_is_no_context_says_nothing(text):
    assert context_of(text) == {}


def test_a_domain_is_read_by_its_own_definition_or_the_nearest_above_it(tmp_path):
    write(tmp_path, definition(name="above", domain="a"))
    write(tmp_path, definition(name="own", domain="a.b"))
    write(tmp_path, definition(name="other", domain="a.b"), "another")
    found = Definitions.read(tmp_path)
    assert set(found.by_name) == {"above", "own", "other"}
    names = {
        domain: one and one.name for domain in ("a", "a.b", "a.b.c", "a.c", "b") for one in [found.of_domain(domain)]
    }
    assert names == {"a": "above", "a.b": "own", "a.b.c": "own", "a.c": "above", "b": None}
