"""The index of contexts: exact below a size, approximate above, and right whatever comes in while it is asked."""

import json
import threading

import numpy as np
import pyarrow as pa
import pytest
from similar_sites import HERE, definition

from qis_connectors.address import Pattern
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, complete
from qis_connectors.router import contexts
from qis_connectors.router.contexts import Contexts
from qis_connectors.router.nearest import Nearest
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.view import View

ROWS = 6000
RECALL = 0.97


def drawn(number, seed=7):
    draw = np.random.default_rng(seed)
    kinds = ["teaching", "university", "rural", "city", *(f"kind-{at}" for at in range(60))]
    return [
        {
            "latitude": round(float(draw.uniform(-60, 70)), 3),
            "place": f"c{draw.integers(12)}/r{draw.integers(9)}/s{draw.integers(30)}",
            "kind": kinds[int(draw.integers(len(kinds)))],
            "allocation": ["random", "alternate", 3][int(draw.integers(3))],
        }
        for _ in range(number)
    ]


@pytest.fixture
def log(tmp_path):
    log = PacketLog(tmp_path / "log")
    yield log
    log.close()


def store(log, packet_row, found, node="n"):
    rows = [packet_row(node_id=f"{node}{at}", context=json.dumps(one)) for at, one in enumerate(found)]
    table = pa.Table.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA)
    stored = threading.Event()
    log.append(HERE, complete(table.combine_chunks().to_batches()[0]), lambda _: stored.set())
    assert stored.wait(10)


def test_a_look_up_is_the_formula_and_what_looks_the_same_is_one(log, packet_row):
    one = definition(threshold=0.6)
    index, found = Contexts(one, log), drawn(300)
    store(log, packet_row, [*found, *({**context, "beside": 1} for context in found), {}, found[0]])
    own = found[17]
    expected = {
        json.dumps(context): score
        for context, score in zip(found, one.scores(own, one.encode(found)), strict=True)
        if score >= 0.6
    }
    similar = index.similar(own, 0.6, 1000)
    assert {json.dumps(context): score for context, score in similar} == expected
    assert [score for _, score in similar] == sorted(expected.values(), reverse=True)
    assert similar[0] == (own, 1.0)
    assert index.share(own, 0.6) == (len(expected), 301)
    store(log, packet_row, [{**own, "allocation": "new"}], "m")
    assert len(index.similar(own, 0.6, 1000)) == len(expected) + 1  # it keeps up


def test_candidates_miss_few_of_those_that_are_similar():
    one = definition(threshold=0.75)
    found = drawn(ROWS)
    encoded = one.encode(found)
    nearest = Nearest(one, encoded)
    assert nearest.candidates(found[0], ROWS, 0.75, 100) is None  # not yet
    nearest.wait()
    hits = total = 0
    for own in drawn(60, seed=8) + found[:60]:
        similar = set(np.flatnonzero(one.scores(own, encoded) >= 0.75).tolist())
        candidates = nearest.candidates(own, ROWS, 0.75, 100)
        assert candidates is not None
        assert len(candidates) < ROWS / 10
        hits += len(similar & set(candidates.tolist()))
        total += len(similar)
    assert total > 120
    assert hits / total >= RECALL
    assert nearest.candidates(found[0], ROWS, 0.1, 100) is None  # more than that are similar: all are gone through
    nearest.close()


def test_above_the_size_a_look_up_finds_what_it_found_below(log, packet_row, monkeypatch):
    one = definition(threshold=0.8)
    found = drawn(2000)
    store(log, packet_row, found[:1900])
    below, above = Contexts(one, log), Contexts(one, log)
    exact = [below.similar(own, 0.8, 50) for own in found[:20]]
    monkeypatch.setattr(contexts, "EXACT_ROWS", 100)
    assert [above.similar(own, 0.8, 50) for own in found[:20]] == exact  # the graph is not there yet
    above._nearest.wait()
    near = [above.similar(own, 0.8, 50) for own in found[:20]]
    assert sum(map(len, near)) >= RECALL * sum(map(len, exact))
    store(log, packet_row, found[1900:], "m")  # rows that the graph has not yet are candidates all the same
    assert above.similar(found[1950], 0.999, 50)[0] == (found[1950], 1.0)
    above.close()


def test_more_contexts_than_are_remembered_are_scored_all_the_same(log, monkeypatch):
    one, found = definition(), drawn(50)
    monkeypatch.setattr(contexts, "MAX_CONTEXTS", 10)
    index = Contexts(one, log)
    expected = one.scores(found[0], one.encode([*found, {}]))
    for width in (5, 51):
        texts = pa.record_batch({"context": [*map(json.dumps, found), None]})
        for at in range(0, 51, width):
            scores = index.scores_of(found[0], texts.slice(at, width))
            assert scores.tolist() == expected[at : at + width].tolist()


def test_packets_are_known_by_their_cursors_once_the_index_has_kept_up(log, packet_row, monkeypatch):
    one, found = definition(threshold=0.5), drawn(200)
    index, own = Contexts(one, log), found[3]
    expected = one.scores(own, one.encode([*found, *found[:50]]))

    def read():
        batches = View(log, Pattern(HERE)).after(0, ["context"])
        return np.concatenate([index.scores_of(own, batch) for batch, _ in batches]).tolist()

    store(log, packet_row, found)
    store(log, packet_row, found[:50], "m")
    assert read() == expected.tolist()
    assert index._mapped == 0
    index.keep_up()
    index._thread.join()
    assert index._mapped == 250
    monkeypatch.setattr(contexts, "_texts", None)  # no text is looked at any more
    assert read() == expected.tolist()
    monkeypatch.undo()
    store(log, packet_row, found[50:60], "late")  # a batch with some that are new
    assert read() == [*expected, *one.scores(own, one.encode(found[50:60]))]
    index.close()


def test_many_threads_at_once_get_their_scores(log):
    one, found = definition(), drawn(400)
    index, wrong = Contexts(one, log), []
    texts = pa.record_batch({"context": [json.dumps(context) for context in found]})

    def ask(seed):
        draw = np.random.default_rng(seed)
        for _ in range(40):
            at, own = int(draw.integers(380)), found[int(draw.integers(400))]
            scores = index.scores_of(own, texts.slice(at, 20))
            if scores.tolist() != one.scores(own, one.encode(found[at : at + 20])).tolist():
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    index.scores_of(found[0], texts)
    assert len(index.texts) == len({json.dumps(context) for context in found})
