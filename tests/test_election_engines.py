"""sql/elections on Spark: the same text, the same elections."""

import pytest
from any_elections import any_rows, election, network, table
from meta_analysis import assert_alike

from pipelines.elections.election import ANSWERS, FOLDERS, Election, replay
from pipelines.engine import spark_is_here, spark_session
from pipelines.synthesize import SQL_FOLDER, answers, plan, statements

KIND = network("kind", kind=None)


def test_every_file_is_part_of_an_election():
    ours = {path.stem for path in FOLDERS[1].glob("*.sql")}
    assert len(ours) >= 15
    assert ours <= {step.name for step in plan(*ANSWERS, "foreseen", folders=FOLDERS)}
    assert ours.isdisjoint(path.stem for path in SQL_FOLDER.glob("*.sql"))
    assert ours.isdisjoint(answers())
    assert {name for name in ours if statements(*FOLDERS)[name].answer} == set(ANSWERS)


@pytest.mark.slow
@pytest.mark.skipif(spark_is_here() is not None, reason=str(spark_is_here()))
def test_spark_holds_the_same_election():
    rows = any_rows(5, sites=5, rounds=5)
    with election(rows, KIND, controls=2) as (_, foreseen, wanted):
        pass
    session = spark_session().newSession()
    session.createDataFrame(table(rows)).createOrReplaceTempView("packets")
    held = Election(session, {"test/x": [network(), KIND]}, 2)
    found = held.foreseen()
    key = [("control", "ascending"), ("design", "ascending"), ("network", "ascending"), ("packet_id", "ascending")]
    assert_alike(found.sort_by(key).to_pylist(), foreseen.sort_by(key).to_pylist(), rel=1e-9)
    answered = held.answers(replay(found))
    for name in ANSWERS:
        assert_alike(answered[name].to_pylist(), wanted[name].to_pylist(), rel=1e-9)
