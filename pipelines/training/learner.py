"""One node's model, samples and settings, and when it takes another's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from qis_connectors.similarity import Definition, context_of

SAMPLES = {"low-large": 500, "low-small": 80, "high-large": 500, "high-small": 80}
"""Node -> how many samples it has. Of low nodes nine in ten are digits below five, of high ones five and above."""
MAIN_SHARE = 0.9
FACTOR = 1.25
Samples = tuple[NDArray[np.float64], NDArray[np.int64]]


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

    def __init__(self, name: str, samples: Samples, settings: Settings, seed: int, number: int) -> None:
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


def split(seed: int) -> dict[str, Samples]:
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
