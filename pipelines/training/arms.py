"""The same nodes four times: alone, alone and searching, sharing with similar nodes, sharing with all of them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import sqrt

import numpy as np
import pyarrow as pa
from scipy import stats

from pipelines.shipped import shipped
from pipelines.training.learner import Learner, learners
from qis_connectors import Node
from qis_connectors.similarity import Definition, load

DOMAIN = "training.digits"
EPOCHS = 30
ARMS = ("isolated", "searching alone", "sharing with similar", "sharing with everyone")


def isolated(seed: int) -> list[Learner]:
    """Nobody hears of anybody; the settings stay as they were drawn."""
    found = learners(seed)
    for one in found:
        for _ in range(EPOCHS):
            one.epoch()
    return found


def searching(seed: int) -> list[Learner]:
    """Nobody hears of anybody; each tries settings nearby and goes back where the epoch made it worse."""
    found = learners(seed)
    for one in found:
        for _ in range(EPOCHS):
            before = one.settings
            one.settings = before.nearby(one.draw)
            change, _ = one.epoch()
            if change < 0:
                one.settings = before
    return found


def sharing(seed: int, router: str, arm: str, similar: Definition | None) -> list[Learner]:
    """Settings travel as packets, through the router; who counts as similar is `similar`'s to say (None: everyone)."""
    found = learners(seed)
    with ExitStack() as stack:
        problem = f"{arm} {seed}"
        nodes = [stack.enter_context(Node(one.name, router, domain=DOMAIN, problem_type=problem)) for one in found]
        for epoch in range(1, EPOCHS + 1):
            for one, node in zip(found, nodes, strict=True):
                change, stderr = one.epoch()
                news = node.step(
                    metric_name="accuracy",
                    metric_delta=change,
                    metric_value=one.level,
                    metric_stderr=stderr,
                    sample_count=len(one.hits),
                    training_phase=f"epoch_{epoch}_of_{EPOCHS}",
                    model_architecture="logistic_regression_sgd",
                    intervention_type="settings",
                    intervention_params={"eta0": one.settings.eta0, "alpha": one.settings.alpha},
                    context=one.context,
                )
                one.adopt(news, similar)
    return found


def accuracies(seed: int, router: str) -> dict[str, list[float]]:
    """Arm -> each node's accuracy in the end, from the same samples and settings at the start."""
    similar = load(shipped("data/networks/training.digits/same-digits.yaml"))
    runs: dict[str, Callable[[], list[Learner]]] = {
        ARMS[0]: lambda: isolated(seed),
        ARMS[1]: lambda: searching(seed),
        ARMS[2]: lambda: sharing(seed, router, "similar", similar),
        ARMS[3]: lambda: sharing(seed, router, "everyone", None),
    }
    return {arm: [one.accuracy for one in run()] for arm, run in runs.items()}


def summary(found: Sequence[dict[str, list[float]]]) -> pa.Table:
    """Of each arm the mean accuracy over nodes and seeds, and what it is above isolated, with a 95 % t interval over
    seeds of the paired differences; then the share of nodes that ended below their isolated twin."""
    rows = []
    for arm in ARMS:
        means = np.array([np.mean(one[arm]) for one in found])
        above = means - np.array([np.mean(one["isolated"]) for one in found])
        reach = float(stats.t.ppf(0.975, len(found) - 1) * above.std(ddof=1) / sqrt(len(found)))
        pairs = [(mine, alone) for one in found for mine, alone in zip(one[arm], one["isolated"], strict=True)]
        mean = float(above.mean())
        rows.append(
            {
                "arm": arm,
                "accuracy": float(means.mean()),
                "above isolated": mean,
                "ci_lb": mean - reach,
                "ci_ub": mean + reach,
                "nodes worse than isolated": sum(mine < alone for mine, alone in pairs) / len(pairs),
            }
        )
    return pa.Table.from_pylist(rows)
