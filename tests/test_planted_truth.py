"""Elections in worlds whose truth is known: who follows them is served better, and where nothing helps nothing wins."""

import duckdb
import planted_truth
import pytest
from planted_truth import ERRORS, WORSE_THAN_ALONE, World, switched


def test_following_the_shares_beats_everyone_and_ones_own_data_and_nears_the_oracle():
    world = World(sites=24, rounds=44, drift=28)
    with duckdb.connect() as connection:
        networks = planted_truth.candidates("node_id", "kind", "region")
        planted_truth.hold(connection, planted_truth.packets(world, range(2)), networks, 0)
        planted_truth.followed(connection, world.drift)
        errors = {name: row for name, *row in connection.execute(ERRORS, {"drift": world.drift}).fetchall()}
        worse = dict(connection.execute(WORSE_THAN_ALONE).fetchall())
    for phase in (0, 2):
        shares, alone, everyone, right = (
            errors[way][phase] for way in ("by shares", "same-node_id", "everyone", "right network")
        )
        assert shares < alone
        assert shares < everyone / 2
        assert shares < 1.2 * right
    assert worse["by shares"] < 0.3 < worse["everyone"]


def test_where_nothing_helps_no_network_takes_over():
    world = World(sites=12, rounds=36, liars=0.0, helps=False)
    assert switched(world, range(3)) == (0, 0)


def test_where_the_kind_helps_it_takes_over():
    assert switched(World(sites=12, rounds=44, drift=44, liars=0.0), range(1)) == (1, 1)


@pytest.mark.slow
def test_where_nothing_helps_a_switch_stands_in_five_of_a_hundred_at_most():
    for liars in (0.0, 0.1):
        world = World(sites=12, rounds=48, liars=liars, helps=False)
        assert switched(world, range(200))[1] <= 10
