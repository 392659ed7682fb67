"""Similarity-weighted synthesis against a plain reference, planted truths and liars."""

import json
import math

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from meta_analysis import DEFINITIONS, NEAR, bcg, packets, pooled, run
from similar_sites import HERE, bcg_packets, definition

from pipelines.kept import kept_answers
from pipelines.similar_contexts import MOST_SIMILAR, similar_contexts
from pipelines.synthesize import synthesize
from qis_connectors.client import RouterClient
from qis_connectors.delta import PacketTable
from qis_connectors.request import similar
from qis_connectors.router import Router
from qis_connectors.similarity import Definitions, context_of


def world(truth, latitudes, seed, errors=(0.2, 0.8)):
    """(packets, truths) of sites that see their truth with noise."""
    draw = np.random.default_rng(seed)
    stderr = draw.uniform(*errors, len(truth))
    seen = truth + draw.normal(0, stderr)
    contexts = [{"latitude": float(latitude)} for latitude in latitudes]
    return packets(list(zip(seen.tolist(), stderr.tolist(), strict=True)), contexts=contexts)


def by_site(rows):
    found = {row["node_id"]: row for row in rows}
    return [found[f"site-{at}"] for at in range(len(found))]


def shrunken(table):
    return by_site(run(table, "similar_sites")["similar_sites"])


def error(estimates, truth):
    return float(np.sqrt(np.mean((np.array(estimates) - truth) ** 2)))


def test_router_sql_and_python_score_alike(tmp_path, packet_row):
    """One definition of all four kernels' kinds that contexts of real trials can be judged by."""
    fields = {"latitude": {"kernel": "numeric", "scale": 10, "weight": 2}, "allocation": {"kernel": "exact"}}
    one = definition(fields, name="both", domain="clinical.tuberculosis", threshold=0.4)
    sites = bcg_packets(packet_row)
    texts = sites["context"].to_pylist()
    relation = similar_contexts(
        pa.table({"address": [HERE] * len(texts), "context": texts}), Definitions([one], {one.domain: one})
    ).to_pylist()
    by_sql = {(row["context"], row["similar_to"]): row["score"] for row in relation}
    assert {row["definition"] for row in relation} == {"both 1"}
    (tmp_path / "similarity").mkdir()
    (tmp_path / "similarity" / "clinical.tuberculosis.yaml").write_text(one.model_dump_json(), encoding="utf-8")
    with (
        Router(tmp_path / "store", "grpc://127.0.0.1:0", similarity=tmp_path / "similarity") as router,
        RouterClient(router.url) as client,
    ):
        client.deposit(sites)
        for text in texts:
            found = client.read(HERE, columns=["context", "similarity"], similar_to=similar(context_of(text))).table
            by_router = {(text, other): score for other, score in zip(*found.to_pydict().values(), strict=True)}
            scores = one.scores(context_of(text), one.encode([context_of(other) for other in texts])).tolist()
            by_python = {(text, other): score for other, score in zip(texts, scores, strict=True) if score >= 0.4}
            assert by_router == by_python == {pair: by_sql[pair] for pair in by_sql if pair[0] == text}


def test_the_answer_is_the_formula_written_plainly():
    table = bcg()
    tau2 = pooled(table)["REML"]["tau2"]
    y, se = np.array(table["metric_delta"]), np.array(table["metric_stderr"])
    contexts = [json.loads(text) for text in table["context"].to_pylist()]
    scores = np.array([NEAR.scores(own, NEAR.encode(contexts)) for own in contexts])
    scores[scores < NEAR.threshold] = 0
    np.fill_diagonal(scores, 0)
    w = 1 / (se**2 + tau2)
    everybody = [(w.sum() - w[at], (w @ y - w[at] * y[at])) for at in range(len(y))]
    mu, mu_variance = np.array([wy / all_w for all_w, wy in everybody]), np.array([1 / one[0] for one in everybody])
    sw = scores * w
    local, local_variance = sw @ y / sw.sum(axis=1), (scores**2 @ w) / sw.sum(axis=1) ** 2
    explained = max(0, np.average((y - mu) * (local - mu), weights=w))
    belief = explained / (explained + local_variance)
    centre, centre_variance = mu + belief * (local - mu), mu_variance + (1 - belief) * explained
    left = max(0, np.average((y - centre) ** 2 - se**2 - centre_variance, weights=w))
    trust = (left + centre_variance) / (left + centre_variance + se**2)
    rows = {row["node_id"]: row for row in run(table, "similar_sites")["similar_sites"]}
    for at, node in enumerate(table["node_id"].to_pylist()):
        row = rows[node]
        wanted = {
            "own": y[at],
            "alike": local[at],
            "alike_se": local_variance[at] ** 0.5,
            "pooled": mu[at],
            "effective_sites": sw[at].sum() ** 2 / (sw[at] ** 2).sum(),
            "own_share": trust[at],
            "shrunk": trust[at] * y[at] + (1 - trust[at]) * centre[at],
            "se": math.sqrt(trust[at]) * se[at],
            "tau2_explained": explained,
            "tau2_left": left,
        }
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)
        assert row["own_share"] + row["alike_share"] + row["pooled_share"] == pytest.approx(1)
    assert explained > 0.1  # latitude explains much of it


def test_sites_alone_clusters_and_a_line_are_all_told_better_together():
    """Error against own data, global pooling and shrinkage to the global mean, over five worlds each."""
    worlds = {"clusters": [], "line": [], "null": []}
    covered = []
    for seed in range(5):
        draw = np.random.default_rng(100 + seed)
        latitude, cluster = draw.uniform(0, 60, 48), draw.integers(0, 4, 48)
        truths = {
            "clusters": (np.array([-0.7, -0.2, 0.2, 0.7])[cluster], cluster * 20.0),
            "line": (1 - latitude / 30, latitude),
            "null": (draw.normal(0, 0.5, 48), latitude),
        }
        for name, (truth, latitudes) in truths.items():
            table = world(truth, latitudes, seed)
            found = run(table, "similar_sites", "shrunk")
            rows, to_all = by_site(found["similar_sites"]), by_site(found["shrunk"])  # the last method, REML
            compared = [[row[key] for row in rows] for key in ("shrunk", "own", "pooled")]
            compared.append([row["shrunk"] for row in to_all])
            worlds[name].append([error(one, truth) for one in compared])
            covered += [row["ci_lb"] <= true <= row["ci_ub"] for row, true in zip(rows, truth, strict=True)]
    errors = {name: np.mean(found, axis=0) for name, found in worlds.items()}
    for name in ("clusters", "line"):
        ours, own, everybody, to_all = errors[name]
        assert ours < 0.6 * min(own, everybody, to_all), name
    ours, own, everybody, to_all = errors["null"]  # similarity says nothing here, and little is lost by asking
    assert ours < 1.02 * to_all < min(own, everybody)
    assert 0.92 < np.mean(covered) < 0.99


def test_a_site_that_is_like_nobody_is_shrunk_to_everybody():
    truth = np.zeros(9)
    rows = shrunken(world(truth, [0.0] * 8 + [1000.0], 3))
    assert (rows[8]["effective_sites"], rows[8]["alike"], rows[8]["alike_share"]) == (0, None, 0)
    assert rows[8]["pooled_share"] > 0
    assert all(3 < row["effective_sites"] <= 7 for row in rows[:8])


def test_a_site_that_sends_much_is_one_site():
    """Its own packets say nothing of what others say, and count once in how many sites there are."""
    table = world(np.zeros(6), [0.0] * 6, 5)
    copies = pa.concat_tables(
        table.slice(5, 1).set_column(4, "packet_id", pa.array([f"copy {at}"])) for at in range(40)
    )
    rows = run(pa.concat_tables([table, copies]), "similar_sites")["similar_sites"]
    own = [row for row in rows if row["node_id"] == "site-5"]
    assert len(own) == 41
    assert len({row["alike"] for row in own}) == 1
    assert all(row["effective_sites"] <= 5 for row in rows)
    robust = run(pa.concat_tables([table, copies]), "similar_robust")["similar_robust"]
    assert [row["k"] for row in robust] == [46]
    assert robust[0]["effective_sites"] < 1.4


@pytest.mark.parametrize("lie", [1e6, -1e6, 3.0])
def test_a_liar_moves_the_plain_mean_and_the_median_within_what_was_said(lie):
    honest = world(np.full(21, 0.2), np.linspace(0, 6, 21), 9)
    before = {row["context"]: row for row in run(honest, "similar_robust")["similar_robust"]}
    moved = 0.0
    for liar in (0, 10, 20):
        effects = honest["metric_delta"].to_pylist()
        effects[liar] = lie
        stderr = honest["metric_stderr"].to_pylist()
        stderr[liar] = 1e-4
        table = honest.set_column(5, "metric_delta", pa.array(effects)).set_column(6, "metric_stderr", pa.array(stderr))
        for row in run(table, "similar_robust")["similar_robust"]:
            was = before[row["context"]]
            assert was["one_liar_lb"] <= row["median"] <= was["one_liar_ub"]
            assert abs(row["weighted_median_capped"] - 0.2) < 0.5
            moved = max(moved, abs(row["mean"] - was["mean"]))
            assert row["one_liar_moved"] > abs(lie) / 4  # and it shows
    assert moved > abs(lie) / 2


def test_no_definition_no_context_and_one_site_give_no_rows_and_no_error():
    table = bcg()
    elsewhere = table.set_column(0, "address", pa.array(["nobody/x"] * 13))
    silent = table.set_column(table.schema.get_field_index("context"), "context", pa.nulls(13, pa.string()))
    for rows in (run(one, "similar_sites", "similar_robust") for one in (elsewhere, silent, table.slice(0, 0))):
        assert rows == {"similar_sites": [], "similar_robust": []}
    assert run(table.slice(0, 1), "similar_sites")["similar_sites"] == []
    hostile = table.set_column(table.schema.get_field_index("context"), "context", pa.array(["[" * 9000] * 13))
    assert {row["alike"] for row in run(hostile, "similar_sites")["similar_sites"]} == {None}


def test_of_many_contexts_the_most_similar_are_kept():
    number = MOST_SIMILAR + 50
    texts = [json.dumps({"latitude": at / 1000, "ward": "a"}) for at in range(number)]
    found = similar_contexts(pa.table({"address": ["test/x"] * number, "context": texts}), DEFINITIONS)
    first = found.filter(pa.compute.equal(found["context"], texts[0]))
    assert first["similar_to"].to_pylist() == texts[:MOST_SIMILAR]
    assert found.num_rows == number * MOST_SIMILAR


def test_kept_answers_are_made_anew_where_the_definition_has_changed(tmp_path, packet_row):
    sites = bcg_packets(packet_row)
    with Router(tmp_path / "store", "grpc://127.0.0.1:0") as router, RouterClient(router.url) as client:
        client.deposit(sites)
        from pipelines.accumulate import accumulate

        accumulate(router.url, tmp_path / "table")
    before = kept_answers(tmp_path / "table", tmp_path / "kept", ["similar_sites", "pooled"])
    wider = definition(
        {"latitude": {"kernel": "numeric", "scale": 30}}, name="wide", domain="clinical.tuberculosis", version=2
    )
    wide = Definitions([wider], {wider.domain: wider})
    after = kept_answers(tmp_path / "table", tmp_path / "kept", ["similar_sites", "pooled"], definitions=wide)
    assert after["pooled"] == before["pooled"]
    assert set(before["similar_sites"]["definition"].to_pylist()) == {"near-latitude 1"}
    assert set(after["similar_sites"]["definition"].to_pylist()) == {"wide 2"}
    with duckdb.connect() as connection:
        PacketTable(tmp_path / "table").relation(connection).create_view("packets")
        assert synthesize(connection, ["similar_sites"], wide)["similar_sites"].num_rows == 13
