"""The index of one definition: every context it has met, once, however many packets carry it.

Two contexts in which the definition sees the same are one row. A read scores the rows of the packets it looks at, by
the formula itself; a look-up goes through all rows, or above EXACT_ROWS asks nearest.py for candidates and scores
those.
"""

from collections.abc import Sequence
from threading import Lock

import numpy as np
import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.kernels import Rows, Scores, said
from qis_connectors.router.nearest import Nearest
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.view import View
from qis_connectors.similarity import Context, Definition, context_of

MAX_CONTEXTS = 1 << 20
"""Texts that are remembered, some 300 bytes each; others are read anew whenever they are met."""

EXACT_ROWS = 100_000
"""Up to here a look-up goes through all rows: four fields take some 3 ms for 100,000. It grows by as much with each
100,000 more; candidates come in about 1 ms at any size, but each row has to be put into a graph first, which takes 0.1
to 0.2 ms, and a few of those that are similar are missed: benchmarks/nodes.py."""


class Contexts:
    """Of the packets of one log. For many threads."""

    def __init__(self, definition: Definition, log: PacketLog) -> None:
        self.definition = definition
        self.seen: list[Context] = []  # what the definition sees of each row
        self._log, self._reached = log, 0
        self._encoded = definition.encode([])
        self._row_of_text: dict[str | None, int] = {}
        self._row_of_values: dict[tuple[object, ...], int] = {}
        self._nearest = Nearest(definition, self._encoded)
        self._adding, self._catching_up = Lock(), Lock()

    def scores_of(self, own: Context, contexts: pa.StringArray) -> Scores:
        """The score of `own` with each of a column of packets' contexts."""
        distinct = contexts.dictionary_encode()
        texts = [*distinct.dictionary.to_pylist(), None]  # the last is for packets without a context
        which = distinct.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
        scores: Scores = self._of_texts(own, texts)[which]
        return scores

    def similar(self, own: Context, threshold: float, most: int) -> list[tuple[Context, float]]:
        """What is known of contexts that score at least `threshold` with `own`, at most so many, best first."""
        rows, scores = self.search(own, threshold, most)
        best = np.argsort(-scores, kind="stable")[:most]
        return [(self.seen[rows[at]], float(scores[at])) for at in best]

    def search(self, own: Context, threshold: float, most: int) -> tuple[Rows, Scores]:
        """The rows that score at least `threshold`, in no order; above EXACT_ROWS perhaps not all of them, and where
        there are more than `most` so many of the best."""
        self.catch_up()
        size = self._encoded.size
        rows = None if size <= EXACT_ROWS else self._nearest.candidates(own, size, threshold, most)
        if rows is None:
            rows = np.arange(size)
        scores = self.definition.scores(own, self._encoded, rows)
        return rows[scores >= threshold], scores[scores >= threshold]

    def share(self, own: Context, threshold: float) -> tuple[int, int]:
        """How many of the rows are that similar to `own`, and how many there are."""
        self.catch_up()
        scores = self.definition.scores(own, self._encoded)
        return int((scores >= threshold).sum()), len(scores)

    def catch_up(self) -> None:
        """Take in what has been stored since the last time; nobody's deposit waits for it."""
        with self._catching_up:
            for batch, reached in View(self._log, Pattern("*")).after(self._reached, ["context"]):
                self._take_in(batch.column("context").unique().to_pylist())
                self._reached = reached

    def close(self) -> None:
        self._nearest.close()

    def _of_texts(self, own: Context, texts: Sequence[str | None]) -> Scores:
        if not self._take_in(texts):
            return self.definition.scores(own, self.definition.encode([context_of(text) for text in texts]))
        rows = np.fromiter((self._row_of_text[text] for text in texts), np.int64, len(texts))
        return self.definition.scores(own, self._encoded, rows)

    def _take_in(self, texts: Sequence[str | None]) -> bool:
        """Whether there was room for those that are new."""
        if all(text in self._row_of_text for text in texts):
            return True
        with self._adding:
            missing = [text for text in texts if text not in self._row_of_text]
            if len(self._row_of_text) + len(missing) > MAX_CONTEXTS:
                return False
            self._add(missing)
        return True

    def _add(self, texts: Sequence[str | None]) -> None:
        fresh: list[Context] = []
        rows = []
        for text in texts:
            context = context_of(text)
            seen = {name: context[name] for name in self.definition.fields if context.get(name) is not None}
            key = tuple(said(seen.get(name)) for name in self.definition.fields)
            following = len(self.seen) + len(fresh)
            rows.append(self._row_of_values.setdefault(key, following))
            if rows[-1] == following:
                fresh.append(seen)
        self._encoded.add(fresh)
        self.seen += fresh
        self._row_of_text.update(zip(texts, rows, strict=True))  # last: who finds a text finds its row
