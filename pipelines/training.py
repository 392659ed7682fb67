"""Four nodes train a classifier of handwritten digits, each on its own samples; settings travel, samples never do.

python -m pipelines.training [--seeds 20]

After each epoch a node deposits what the epoch changed with Node.step, gets what the others have, and where a similar
node stands better by more than the standard error, it goes on with that one's settings, times or over 1.25: the
exploit and explore of population based training (Jaderberg et al. 2017, arXiv:1711.09846), without the weights.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import log10, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import track
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from pipelines.output import Format, notices, print_rows
from pipelines.shipped import shipped
from qis_connectors import Node
from qis_connectors.router import Router
from qis_connectors.similarity import Definition, context_of, load

DOMAIN = "training.digits"
SAMPLES = {"low-large": 500, "low-small": 80, "high-large": 500, "high-small": 80}
"""Node -> how many samples it has. Of low nodes nine in ten are digits below five, of high ones five and above."""
MAIN_SHARE = 0.9
EPOCHS = 30
FACTOR = 1.25
ARMS = ("isolated", "searching alone", "sharing with similar", "sharing with everyone")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """Learning rate and L2 penalty of the stochastic gradient descent."""

    eta0: float
    alpha: float

    @classmethod
    def drawn(cls, draw: np.random.Generator) -> "Settings":
        """As somebody sets them who does not know the problem: anywhere in five decades."""
        return cls(float(10 ** draw.uniform(-5, 0)), float(10 ** draw.uniform(-6, -1)))

    def nearby(self, draw: np.random.Generator) -> "Settings":
        up, down = draw.choice([FACTOR, 1 / FACTOR], 2)
        return Settings(float(self.eta0 * up), float(self.alpha * down))


class Learner:
    """One node's model and samples: half to train on, a quarter to steer by, a quarter that only the result sees."""

    def __init__(
        self, name: str, samples: tuple[Floats, NDArray[np.int64]], settings: Settings, seed: int, number: int
    ) -> None:
        x, y = samples
        half, most = len(y) // 2, 3 * len(y) // 4
        self.train, self.steer, self.test = ((x[part], y[part]) for part in np.split(np.arange(len(y)), [half, most]))
        self.name, self.settings = name, settings
        self.draw = np.random.default_rng([seed, 2, number])
        self.model = SGDClassifier(loss="log_loss", learning_rate="constant", random_state=seed)
        self.hits = np.full(len(self.steer[1]), 0.1)  # before the first epoch: a guess among ten

    @property
    def context(self) -> dict[str, Any]:
        return {"digits": self.name.split("-")[0], "log10_samples": round(log10(len(self.train[1])), 3)}

    def epoch(self) -> tuple[float, float]:
        """One pass over the training samples; the change of the accuracy steered by, and its paired standard error."""
        self.model.set_params(eta0=self.settings.eta0, alpha=self.settings.alpha)
        self.model.partial_fit(*self.train, classes=np.arange(10))
        hits = self.model.predict(self.steer[0]) == self.steer[1]
        change, self.hits = hits - self.hits, hits.astype(float)
        # Where nothing changed one sample more or less is what could have.
        return float(change.mean()), max(float(change.std(ddof=1)), 1 / sqrt(len(hits))) / sqrt(len(hits))

    @property
    def level(self) -> float:
        return float(self.hits.mean())

    @property
    def accuracy(self) -> float:
        """On the samples that nothing was steered by."""
        return float(self.model.score(*self.test))

    def adopt(self, news: pa.Table, similar: Definition | None) -> None:
        """The settings of the similar node that stands best, if that is better by more than the standard error."""
        rows = news.to_pylist()
        if similar is not None and rows:
            scores = similar.scores(self.context, similar.encode([context_of(row["context"]) for row in rows]))
            rows = [row for row, score in zip(rows, scores, strict=True) if score >= similar.threshold]
        best = max(rows, key=lambda row: row["metric_value"], default=None)
        if best is None:
            return
        variance = sum(p * (1 - p) / n for p, n in self._levels(best))
        if best["metric_value"] - self.level > sqrt(variance):
            self.settings = Settings(**json.loads(best["intervention_params"])).nearby(self.draw)

    def _levels(self, other: dict[str, Any]) -> Iterator[tuple[float, int]]:
        yield self.level, len(self.hits)
        yield other["metric_value"], other["sample_count"]


def split(seed: int) -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """Each node's own samples, unevenly many and of unlike digits; nobody has another's."""
    digits = load_digits()
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(digits.target))
    low, high = (list(order[(digits.target[order] < 5) == is_low]) for is_low in (True, False))
    found = {}
    for name, size in SAMPLES.items():
        main, rest = (low, high) if name.startswith("low") else (high, low)
        taken = [main.pop() for _ in range(round(MAIN_SHARE * size))]
        taken += [rest.pop() for _ in range(size - len(taken))]
        at = draw.permutation(np.array(taken))
        found[name] = digits.data[at] / 16, digits.target[at]
    return found


def learners(seed: int) -> list[Learner]:
    draw = np.random.default_rng([seed, 1])
    return [
        Learner(name, samples, Settings.drawn(draw), seed, number)
        for number, (name, samples) in enumerate(split(seed).items())
    ]


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.training", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many times everything is drawn anew")
    parser.add_argument("--format", type=Format, choices=list(Format), default=Format.table)
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds must be at least 2: one seed has no interval")
    with TemporaryDirectory() as folder, Router(Path(folder) / "router", "grpc://127.0.0.1:0") as router:
        seeds = track(range(given.seeds), "Training", console=notices, transient=True, disable=not notices.is_terminal)
        found = [accuracies(seed, router.url) for seed in seeds]
    print_rows(summary(found), given.format)


if __name__ == "__main__":
    main()
