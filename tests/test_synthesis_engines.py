"""Each file of sql/ on each engine: the same text, the same answers, and those are the ones beside it in tests/sql."""

import duckdb
import pytest
from expected_answers import FOLDER, as_text, example, expected
from meta_analysis import COLUMNS, DEFINITIONS, HIGHEST_ERROR, METHODS, assert_alike, classic, rows
from pyarrow import csv

from pipelines.engine import spark_is_here, spark_session
from pipelines.shipped import shipped
from pipelines.similar_contexts import SCHEMA
from pipelines.synthesize import CONSTANTS, SIMILAR, answers, plan, statements, synthesize

NO_SPARK = pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))


def answers_of(engine, table, names):
    if engine == "duckdb":
        with duckdb.connect() as connection:
            connection.register("packets", table)
            return synthesize(connection, names, DEFINITIONS)
    session = spark_session().newSession()
    session.createDataFrame(table).createOrReplaceTempView("packets")
    return synthesize(session, names, DEFINITIONS)


def assert_expected(found):
    for name, table in found.items():
        wanted, got = expected(name), table.to_pylist()
        assert len(wanted) == len(got), name
        assert list(wanted[0]) == table.column_names, name
        for number, (want, row) in enumerate(zip(wanted, got, strict=True)):
            for column, value in row.items():
                if isinstance(value, float):
                    assert value == pytest.approx(float(want[column]), rel=1e-9, abs=1e-10), (name, number, column)
                else:
                    assert as_text(value) == want[column], (name, number, column)


def test_every_answer_has_its_expected_rows():
    written = {path.stem for path in FOLDER.glob("*.csv")}
    assert written == set(answers()), "python tests/expected_answers.py NAME writes tests/sql/NAME.csv"


def test_duckdb_gives_what_is_expected():
    found = answers_of("duckdb", example(), None)
    assert len(found) == len(answers()) > 14
    assert_expected(found)


@NO_SPARK
def test_spark_understands_every_file():
    """Names, functions and types, without a job: each file is read over relations that hold no rows."""
    session = spark_session().newSession()

    def stands(name, rows):
        session.createDataFrame([], rows.schema).createOrReplaceTempView(name)

    stands("packets", session.createDataFrame(example()))
    for name in CONSTANTS:
        stands(name, session.createDataFrame(csv.read_csv(shipped(f"data/{name}.csv"))))
    stands(SIMILAR, session.createDataFrame(SCHEMA.empty_table()))
    analysed = 0
    for step in plan(*answers()):
        if step.repeat is not None:
            stands(step.name, session.table(step.repeat))
        rows = session.sql(step.text)
        if step.repeat is not None:
            assert rows.schema.names == session.table(step.repeat).schema.names, step.name
        stands(step.name, rows)
        if step.name == "every_packet":
            stands("cohorts", rows)
        if step.answer:
            assert rows.schema.names == list(expected(step.name)[0]), step.name
        analysed += 1
    assert analysed == len(statements())


@NO_SPARK
def test_spark_gives_what_is_expected():
    assert_expected(answers_of("spark", example(), ["pooled"]))


@NO_SPARK
@pytest.mark.slow
def test_spark_gives_what_is_expected_of_every_file():
    found = answers_of("spark", example(), None)
    assert len(found) == len(answers())
    assert_expected(found)


@NO_SPARK
@pytest.mark.slow
@pytest.mark.parametrize("real", HIGHEST_ERROR, ids=str)
def test_spark_equals_metafor(real):
    found = answers_of("spark", classic(real), ["pooled", "leave_one_out", "robust"])
    pooled = {(row["address"], row["method"]): row for row in found["pooled"].to_pylist()}
    compared = 0
    for want in rows("meta_outputs.csv"):
        for theirs, ours in COLUMNS.get(want["inference"], {}).items() if want["method"] in METHODS else ():
            got = pooled[f"test/{want['dataset']}", want["method"]][ours]
            allowed = HIGHEST_ERROR[real][want["method"]] * max(1.0, abs(float(want[theirs])))
            assert abs(got - float(want[theirs])) <= allowed, (want["dataset"], want["method"], ours)
            compared += 1
    assert compared == 4 * (4 * 10 + 3 * 3)
    assert found["leave_one_out"].num_rows == 4 * (13 + 16 + 21 + 6)
    # Spark's own arithmetic is DuckDB's: what that equals of leave-one-out and the robust answers, this equals.
    local = answers_of("duckdb", classic(real), ["leave_one_out", "robust"])
    for name, table in local.items():
        assert_alike(found[name].to_pylist(), table.to_pylist(), rel=1e-9)
