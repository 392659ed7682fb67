"""Elections as their users meet them: nothing is known too early, no liar decides, and known answers come out."""

import pyarrow as pa
import pytest
from any_elections import any_rows, election, expected, network, table
from meta_analysis import bcg

from pipelines.elections.networks import NetworkError, Profile, candidates, networks_of, similarities
from pipelines.shipped import shipped
from qis_connectors.errors import QisError

KIND, OWN = network("kind", kind=None), network("own", node_id=None)


def forecasts_of(rows, *networks):
    with election(rows, *networks) as (_, forecasts, _):
        return expected(forecasts)


def moved(rows, which, *networks):
    """The (packet, network) whose forecast is another where the effects that `which` is true of are."""
    before = forecasts_of(rows, *networks)
    after = forecasts_of([{**row, "y": row["y"] + 7.0} if which(row) else row for row in rows], *networks)
    # Threads add up in orders of their own.
    return {key for key, one in before.items() if one[0] is not None and after[key] != pytest.approx(one, abs=1e-9)}


def test_no_forecast_knows_what_comes_later_or_at_the_same_time():
    rows = any_rows(1, sites=6, rounds=8)
    times = {rows[int(number)]["time"] for number, _ in moved(rows, lambda row: row["time"] >= 4, KIND, OWN)}
    assert times == {5, 6, 7}


def test_only_a_network_that_says_so_knows_a_sites_own_past():
    rows = any_rows(2, sites=6, rounds=8)
    found = {
        (rows[int(number)]["node"], name) for number, name in moved(rows, lambda row: row["node"] == "s3", KIND, OWN)
    }
    assert {name for node, name in found if node == "s3"} == {"own"}
    assert {name for node, name in found if node == "s2"} == {"everyone", "kind", "own"}


def test_a_network_that_explains_nothing_expects_what_everyone_does():
    rows = [{**row, "y": 0.1} for row in any_rows(3)]
    found = forecasts_of(rows, KIND)
    for number in range(len(rows)):
        assert found[f"{number:04}", "kind"] == found[f"{number:04}", "everyone"]


def test_a_liar_has_no_say_among_the_known_and_costs_every_network_the_same():
    honest, lying = any_rows(4, sites=12, rounds=8), any_rows(4, sites=12, rounds=8, liar=True)
    with election(lying, KIND, OWN) as (connection, forecasts, _):
        found = expected(forecasts)
        scores = connection.sql(
            "SELECT DISTINCT score FROM normal_scores JOIN arrivals USING (election, packet_id) WHERE node_id = 's0'"
        ).fetchall()
    assert scores == [(4.0,)]
    wanted = forecasts_of(honest, KIND, OWN)
    late = [key for key, one in found.items() if lying[int(key[0])]["node"] != "s0" and one[0] is not None]
    assert len(late) > 150
    # Without the site altogether a few hundredths are natural; a million is not.
    assert max(abs(found[key][0] - wanted[key][0]) for key in late) < 0.5


def test_controls_give_each_site_the_context_of_another():
    profiles = [Profile(number, "a/b", f"s{number}", f'{{"kind": {number % 3}}}') for number in range(9)]
    networks = [network(), KIND, OWN]
    numbers = {number: pair for pair, number in candidates(networks).items()}
    found = {}
    for row in similarities(networks, profiles).to_pylist():
        found.setdefault(numbers[row["candidate"]], set()).add((row["profile"], row["other"]))
    assert found[0, "kind"] == {(a, b) for a in range(9) for b in range(9) if a != b and a % 3 == b % 3}
    assert found[0, "own"] == {(number, number) for number in range(9)}
    assert len(found) == 2 * 100
    permutations = {frozenset(pairs) for (control, name), pairs in found.items() if name == "own" and control}
    assert len(permutations) == 99
    assert all(len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 9 for pairs in permutations)


@pytest.fixture(scope="module")
def trials():
    domain = bcg()
    tuberculosis = domain.set_column(0, "address", pa.array(["clinical.tuberculosis/bcg_vaccine"] * 13))
    with election(tuberculosis, *networks_of("clinical.tuberculosis")[1:], controls=99) as (_, _, answers):
        yield {(row["design"], row["network"]): row for row in answers["election"].to_pylist()}


def test_the_known_answer_latitude_foresees_a_trial_that_is_left_out_best(trials):
    left = {name: row for (design, name), row in trials.items() if design == "left_out"}
    assert list(left) == ["near-latitude", "everyone", "random", "same-allocation"]
    assert [f"{row['score']:.4f}" for row in left.values()] == ["0.5427", "0.5991", "0.6572", "0.6620"]
    assert {row["forecasts"] for row in left.values()} == {13}
    assert left["near-latitude"]["verdict"] == "better than everyone and than shuffled contexts"
    assert left["near-latitude"]["shuffled"] == 0.03
    assert left["same-allocation"]["shuffled"] > 0.5


def test_and_thirteen_trials_in_time_do_not_clear_the_margin(trials):
    timely = {name: row for (design, name), row in trials.items() if design == "in_time"}
    assert list(timely) == ["near-latitude", "everyone", "same-allocation", "random"]
    best = timely["near-latitude"]
    assert (best["forecasts"], best["needed"], best["shuffled"]) == (10, 60, 0.04)
    assert 1 < best["evidence"] < 2
    assert best["verdict"] == "better than everyone, below the margin"
    assert timely["everyone"]["verdict"] == "has the say: no other has reached the margin"


def test_networks_that_cannot_stand_are_named(tmp_path):
    with pytest.raises(NetworkError, match="is no folder"):
        networks_of("test", tmp_path / "nothing")
    said = "name: everyone\nversion: 1\nauthor: x\ndomain: test\nthreshold: 0.5\nfields: {}\n"
    (tmp_path / "a.yaml").write_text(said, encoding="utf-8")
    with pytest.raises(NetworkError, match=r"a\.yaml: a network of test is called 'everyone' already"):
        networks_of("test", tmp_path)
    assert [one.name for one in networks_of("elsewhere", tmp_path)] == ["everyone"]
    (tmp_path / "a.yaml").write_text(said.replace("threshold: 0.5", "threshold: 5.0"), encoding="utf-8")
    with pytest.raises(QisError, match="threshold"):
        networks_of("test", tmp_path)


def test_every_shipped_network_stands_for_its_folder():
    files = sorted(shipped("data/networks").rglob("*.yaml"))
    assert len(files) >= 5
    for path in files:
        assert path.stem in {one.name for one in networks_of(path.parent.name)}
    assert [one.name for one in networks_of("test.below")] == ["everyone"]


def test_nothing_to_elect_is_no_error():
    with election(table(any_rows(5)[:2]), KIND) as (_, forecasts, answers):
        assert {row["mean"] for row in forecasts.to_pylist()} == {None}
        assert answers["shares"].num_rows == answers["election"].num_rows == 0
