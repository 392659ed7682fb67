"""How sql/ is found, ordered and run, and what a wrong file or name is told."""

import math
import re
from pathlib import Path

import pyarrow as pa
import pytest
from meta_analysis import assert_alike, bcg, classic, packets, run

from pipelines.synthesize import SynthesisError, answers, plan, statements, synthesize_packets


def test_synthesize_packets_completes_the_address():
    bare = packets([(0.1, 0.1), (0.2, 0.1)]).drop_columns(["address"])
    bare = bare.append_column("domain", pa.array(["clinical.a b"] * 2))
    bare = bare.append_column("problem_type", pa.array(["x"] * 2))
    found = synthesize_packets(bare)
    assert found["address"].unique().to_pylist() == ["clinical.a%20b/x"]
    assert found.column_names == [
        *("address", "metric_name", "intervention_type", "method", "k", "estimate", "se", "ci_lb", "ci_ub"),
        *("tau2", "q", "i2", "hk_se", "hk_ci_lb", "hk_ci_ub", "pi_lb", "pi_ub"),
    ]


def test_answers_in_any_order_are_the_same(classic_answers):
    assert {"leave_one_out", "pooled", "robust", "sites"} < set(answers())
    again = run(classic(), "estimates", *reversed(answers()), "pooled")
    for name in answers():
        assert len(again[name]) == len(classic_answers[name])
    by_key = {(row["address"], row["method"]): row["estimate"] for row in again["estimates"] if row["cohort"] == ""}
    for first, second in zip(classic_answers["pooled"], again["pooled"], strict=True):
        assert first == pytest.approx(second, abs=1e-12)
        assert by_key[first["address"], first["method"]] == pytest.approx(first["estimate"], abs=1e-12)


def test_an_answer_is_the_same_alone_and_among_others(classic_answers):
    """Those that pool other sets of packets share each estimator's one run."""
    for name in ("pooled", "leave_one_out", "cumulative", "influence", "tau2_interval"):
        assert_alike(run(classic(), name)[name], classic_answers[name], rel=1e-10)


def test_every_answer_that_pools_says_which_sets():
    """Or it would be computed over the sets of whichever answer runs beside it."""
    pooling = [name for name in answers() if "fixed_effect" in {step.name for step in plan(name)}]
    assert len(pooling) > 8
    assert all(statements()[name].cohorts for name in pooling)
    beside = run(bcg(), "meta_regression", "tau2_interval", "subgroups")
    for name in ("meta_regression", "tau2_interval"):
        assert_alike(run(bcg(), name)[name], beside[name], rel=1e-10)


def test_the_latest_packet_of_an_id_counts():
    old, new = packets([(9.0, 0.1)], times=[1]), packets([(0.5, None)], times=[2])
    invalid = packets([(math.nan, 0.1)], times=[3])
    (row,) = run(pa.concat_tables([new, invalid, old]), "sites")["sites"]
    assert (row["estimate"], row["se"]) == (0.5, None)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(
        SynthesisError, match=r"^no synthesis 'poolled'; did you mean 'pooled'\? Known: all_but"
    ) as error:
        synthesize_packets(packets([(0.1, 0.1)]), "poolled")
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_every_file_is_reached_and_says_what_it_is():
    folder = Path(__file__).parents[1] / "sql"
    files = {path.stem for path in folder.glob("*.sql")}
    assert len(files) >= 17
    assert files == set(statements()) == {step.name for name in answers() for step in plan(name)}
    for statement in statements().values():
        code = re.sub(r"--.*", "", statement.text)
        assert ";" not in code, "one statement a file"
        assert not re.search(r"\blog\(|isfinite", code, re.IGNORECASE), "means two things, or is missing, on Spark"
        assert statement.title
        assert statement.grain


HEADER = "-- {name}: what?\n-- inputs: {inputs}\n-- output: x\n-- grain: one\n-- source: none\n-- answer: no\nSELECT 1"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": HEADER.replace("-- grain: one\n", "")}, r"a\.sql: the header has no line '-- grain: \.\.\.'"),
        ({"a": HEADER.replace("answer: no", "answer: maybe")}, r"a\.sql: answer is 'maybe', not yes or no"),
        ({"a": HEADER.replace("-- grain", "-- repeats: a\n-- grain")}, r"a\.sql: unknown header key 'repeats'"),
        ({"effects": HEADER.replace("{inputs}", "packet")}, r"effects\.sql: unknown input 'packet'"),
        ({"a": HEADER.replace("{inputs}", "b"), "b": HEADER.replace("{inputs}", "a")}, r"a\.sql.*b\.sql.*circle"),
    ],
)
def test_a_wrong_header_names_the_file(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.sql").write_text(text.replace("{name}", name).replace("{inputs}", "packets"))
    with pytest.raises(SynthesisError, match=message):
        statements(tmp_path)
