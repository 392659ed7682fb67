"""Four nodes train on their own digits: settings travel through a real router, samples do not."""

import json

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (pip install 'qis-connectors[training]')")

from pipelines.shipped import shipped
from pipelines.training import arms
from pipelines.training.arms import sharing, summary
from pipelines.training.learner import SAMPLES, Settings, learners, split
from qis_connectors.client import RouterClient
from qis_connectors.similarity import load


@pytest.fixture
def similar():
    return load(shipped("data/networks/training.digits/same-digits.yaml"))


def news(node, level, settings):
    """What a node that stands there with these settings would have sent."""
    row = {
        "node_id": node.name,
        "metric_value": level,
        "sample_count": 1000,
        "context": json.dumps(node.context),
        "intervention_params": json.dumps({"eta0": settings.eta0, "alpha": settings.alpha}),
    }
    return pa.Table.from_pylist([row])


def test_samples_are_uneven_and_nobody_has_anothers():
    found = split(0)
    assert {name: len(y) for name, (_, y) in found.items()} == SAMPLES
    assert np.mean(found["low-large"][1] < 5) == np.mean(found["high-large"][1] >= 5) == 0.9
    images = [image.tobytes() for x, _ in found.values() for image in x]
    assert len(set(images)) == len(images)


def test_settings_are_taken_from_the_similar_who_stand_better_and_from_nobody_else(similar):
    mine, low, high, _ = learners(0)
    good = Settings(0.01, 0.001)
    start = mine.settings
    mine.adopt(news(high, 0.99, good), similar)
    assert mine.settings == start  # it learns other digits
    mine.adopt(news(low, mine.level + 0.01, good), similar)
    assert mine.settings == start  # it is no better than chance would make it
    mine.adopt(news(low, 0.99, good), similar)
    assert mine.settings.eta0 in (pytest.approx(0.01 * 1.25), pytest.approx(0.01 / 1.25))
    other, *_ = learners(0)
    other.adopt(news(high, 0.99, good), None)
    assert other.settings.alpha in (pytest.approx(0.001 * 1.25), pytest.approx(0.001 / 1.25))


def test_what_travels_is_a_packet_a_node_and_epoch(router, similar, monkeypatch):
    monkeypatch.setattr(arms, "EPOCHS", 4)
    ended = sharing(0, router.url, "similar", similar)
    with RouterClient(router.url) as client:
        packets = client.read("training.digits").table
    assert packets.num_rows == 4 * len(ended)
    assert set(packets["training_phase"].to_pylist()) == {f"epoch_{epoch}_of_4" for epoch in range(1, 5)}
    last = packets.slice(packets.num_rows - 4).to_pylist()
    assert [row["metric_value"] for row in last] == pytest.approx([one.level for one in ended], abs=1e-6)
    # Everything is drawn anew from the seed: the same again.
    again = sharing(0, router.url, "again", similar)
    assert [one.accuracy for one in again] == [one.accuracy for one in ended]


def test_the_summary_is_paired():
    seeds = [{arm: [base + 0.1 * number, base] for number, arm in enumerate(arms.ARMS)} for base in (0.1, 0.5, 0.9)]
    rows = summary(seeds).to_pylist()
    assert [row["above isolated"] for row in rows] == pytest.approx([0, 0.05, 0.1, 0.15])
    # The base is the same in all arms, so the pairs leave nothing to be unsure of.
    assert [row["ci_ub"] - row["ci_lb"] for row in rows] == pytest.approx([0] * 4, abs=1e-9)
