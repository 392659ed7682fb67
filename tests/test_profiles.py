"""Registered interest: what reaches whom, across restarts, and what is refused."""

import threading
from contextlib import closing

import pytest
from similar_sites import HERE, bcg_packets, definition, write

from pipelines.shipped import shipped
from qis_connectors import Node
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.router import Router, backup, profiles

PROBLEM = {"domain": "clinical.tuberculosis", "problem_type": "bcg_vaccine"}
NORTH, SOUTH = {"latitude": 55}, {"latitude": 10}
MANY = 50
OUTCOME = {
    "metric_name": "log_risk_ratio",
    "metric_delta": -0.5,
    "metric_stderr": 0.2,
    "metric_value": 0.1,
    "sample_count": 100,
    "intervention_type": "bcg",
}


def serving(store, similarity=None, url="grpc://127.0.0.1:0"):
    return Router(store, url, similarity=similarity or shipped("similarity"))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def heard(node, profile, number, since=None):
    """Whose packets the first `number` are that reach a profile."""
    found = []
    with closing(node.watch(profile=profile, since=since)) as news:
        while len(found) < number:
            found += next(news)["node_id"].to_pylist()
    return found


def test_packets_reach_the_profiles_they_match_as_they_arrive_and_across_a_restart(store):
    router = serving(store)
    with Node("north", router.url, **PROBLEM) as north, Node("south", router.url, **PROBLEM) as south:
        wants_north, wants_south = north.register(NORTH), south.register(SOUTH)
        assert north.register(NORTH) == wants_north
        reached, hears = [], threading.Event()

        def follow():
            with closing(north.watch(profile=wants_north)) as news:
                for table in news:
                    assert table["similarity"].to_pylist() == pytest.approx([1.0] * table.num_rows, abs=0.02)
                    reached.extend(table["node_id"].to_pylist())
                    hears.set()
                    if len(reached) == 2:
                        return

        with Node("oslo", router.url, **PROBLEM) as oslo:
            assert oslo.register({"latitude": 56})
            thread = threading.Thread(target=follow)
            thread.start()
            oslo.deposit(**OUTCOME)  # its own context goes with it: it has registered one
            assert hears.wait(10)
            north.deposit(**OUTCOME)  # reaches others, not itself
            south.deposit(**OUTCOME)
            url = router.url
            router.close()
            router = serving(store, url=url)
            oslo.deposit(**{**OUTCOME, "metric_delta": -0.4})
            thread.join(30)
            assert reached == ["oslo", "oslo"]
        with RouterClient(router.url) as client:
            assert {one["profile"] for one in client.profiles()} >= {wants_north, wants_south}
        with Node("late", router.url, **PROBLEM) as late:
            assert heard(late, wants_north, 2) == ["oslo", "oslo"]
            assert heard(late, late.register({"latitude": 54}), 3) == ["oslo", "north", "oslo"]
            late.deposit(**OUTCOME, context=SOUTH)  # what is given counts more than what is registered
            assert heard(south, wants_south, 1) == ["late"]
    router.close()


def test_profiles_are_listed_dropped_and_in_the_backup(store, tmp_path):
    with serving(store) as router, RouterClient(router.url) as client:
        first = client.register_profile("a", HERE, NORTH, None, None)
        other = client.register_profile("a", "clinical.*", {**SOUTH, "ward": 3}, 0.9, "near-latitude")
        told = {one.pop("profile"): one for one in client.profiles()}
        assert told == {
            first: {"node_id": "a", "address": HERE, "context": NORTH, "threshold": 0.6, "definition": "near-latitude"},
            other: {
                "node_id": "a",
                "address": "clinical.*",
                "context": {**SOUTH, "ward": 3},
                "threshold": 0.9,
                "definition": "near-latitude",
            },
        }
        client.drop_profile(first)
        with pytest.raises(QisError, match=f"profile '{first}' is not known to this router"):
            client.drop_profile(first)
        with pytest.raises(QisError, match="is not known to this router: register it"):
            next(client.watch(None, profile=first))
        backup(store, tmp_path / "copy")
    for folder in (store, tmp_path / "copy"):
        with serving(folder) as router, RouterClient(router.url) as client:
            assert [one["profile"] for one in client.profiles()] == [other]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"threshold": 0.0}, "profile matches everything: its threshold is 0"),
        ({"definition": "everyone"}, "profile matches everything: definition 'everyone' finds all contexts alike"),
        ({"context": {"allocation": "random"}}, "profile matches nothing: the best score its context can have is 0,"),
        ({"node_id": ""}, "profile field 'node_id' is missing"),
        ({"node_id": "n" * 300}, "profile field 'node_id' is 300 letters long"),
        ({"address": "clinical.*"}, "request field 'definition' is missing: 'clinical.*' is of no domain that has one"),
        ({"definition": "near"}, "similarity definition 'near' is not known here"),
        ({"address": "a//b"}, "address 'a//b' has an empty"),
    ],
)
def test_a_profile_that_is_no_choice_is_refused_with_its_reason(store, tmp_path, asked, line):
    write(tmp_path / "similarity", definition({}, name="everyone", domain="x"))
    text = shipped("similarity/clinical.tuberculosis.yaml").read_text(encoding="utf-8")
    (tmp_path / "similarity" / "clinical.tuberculosis.yaml").write_text(text, encoding="utf-8")
    given = {"node_id": "a", "address": HERE, "context": NORTH, "threshold": None, "definition": None, **asked}
    with serving(store, tmp_path / "similarity") as router, RouterClient(router.url) as client:
        with pytest.raises(QisError) as error:
            client.register_profile(**given)
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)
        assert client.profiles() == []


def test_a_profile_that_all_contexts_match_is_seen_to_be_none(store, packet_row, packets):
    with serving(store) as router, RouterClient(router.url) as client:
        client.deposit(bcg_packets(packet_row))
        for at in range(profiles.MIN_CONTEXTS):
            with Node(f"n{at}", router.url, **PROBLEM) as node:
                node.deposit(**OUTCOME, context={"latitude": 30 + at})
        known = len({*range(30, 30 + profiles.MIN_CONTEXTS), 13, 18, 19, 27, 52, 55})
        with pytest.raises(
            QisError, match=f"profile matches everything: all {known} contexts here score at least 0.01"
        ):
            client.register_profile("a", HERE, {"latitude": 40}, 0.01, None)
        assert client.register_profile("a", HERE, {"latitude": 40}, 0.5, None)
        client.deposit(packets(1))  # one without a context matches nothing
        assert client.register_profile("a", HERE, {"latitude": 40}, 0.01, None)


def test_there_may_be_so_many(store, monkeypatch):
    monkeypatch.setattr(profiles, "MAX_PROFILES_PER_NODE", 2)
    monkeypatch.setattr(profiles, "MAX_PROFILES", 3)
    with serving(store) as router, RouterClient(router.url) as client:

        def register(node, latitude):
            return client.register_profile(node, HERE, {"latitude": latitude}, None, None)

        first = register("a", 1)
        register("a", 2)
        with pytest.raises(QisError, match="node 'a' has 2 profiles and may have no more"):
            register("a", 3)
        register("b", 3)
        with pytest.raises(QisError, match="the router keeps 3 profiles and no more"):
            register("c", 3)
        assert register("a", 1) == first
        client.drop_profile(first)
        register("c", 3)


def test_a_router_that_has_lost_a_definition_says_so_to_its_profiles(store):
    with serving(store) as router, Node("a", router.url, **PROBLEM) as node:
        profile = node.register(NORTH)
    with Router(store, "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        assert len(client.profiles()) == 1
        with pytest.raises(QisError, match="similarity definition 'near-latitude' is not known here"):
            next(client.watch(None, profile=profile))


def test_profiles_that_cannot_be_read_do_not_keep_the_packets_from_being_served(store, packets):
    with serving(store) as router, RouterClient(router.url) as client:
        client.register_profile("a", HERE, NORTH, None, None)
        client.deposit(packets(3))
    (store / "profiles.db").write_bytes(b"not a database" * 1000)
    with serving(store) as router, RouterClient(router.url) as client:
        assert client.profiles() == []
        assert client.read(HERE).table.num_rows == 3
        assert client.register_profile("a", HERE, NORTH, None, None)
    assert (store / "profiles.db.damaged").exists()


def test_a_full_disk_refuses_a_profile_and_goes_on_serving(store, packets, full_disk):
    with serving(store) as router, RouterClient(router.url) as client:
        client.deposit(packets(3))
        kept = client.register_profile("a", HERE, NORTH, None, None)
        size = max(path.stat().st_size for path in store.glob("profiles.db*"))
        beside = {"more": "x" * 900}

        def register_many():
            for at in range(MANY):
                client.register_profile(f"n{at}", HERE, {"latitude": at, **beside}, None, None)

        with full_disk(size), pytest.raises(QisError, match="the router cannot keep the profile: disk"):
            register_many()
        assert client.read(HERE).table.num_rows == 3
        assert client.register_profile("b", HERE, NORTH, None, None)
    with serving(store) as router, RouterClient(router.url) as client:
        assert kept in {one["profile"] for one in client.profiles()}
