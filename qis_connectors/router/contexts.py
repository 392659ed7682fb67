"""The index of one definition: every context it has met, once, however many packets carry it.

Two contexts in which the definition sees the same are one row. It is filled when first asked for and keeps up with the
log in a thread of its own. A read scores the rows of the packets it looks at, by the formula itself; a look-up goes
through all rows, or above EXACT_ROWS asks nearest.py for candidates and scores those.
"""

from collections.abc import Sequence
from threading import Lock, Thread

import numpy as np
import pyarrow as pa

from qis_connectors.address import Pattern
from qis_connectors.kernels import Column, Rows, Scores, said
from qis_connectors.router.nearest import Nearest
from qis_connectors.router.packet_log.chunk import CURSOR
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.view import View
from qis_connectors.similarity import Context, Definition, context_of

MAX_CONTEXTS = 1 << 20
"""Texts that are remembered, some 600 bytes each; others are read anew whenever they are met, and not looked up."""

MAX_PACKETS = 1 << 24
"""Packets whose context is known by their cursor, 12 bytes each; of others it is read from the packet itself."""

EXACT_ROWS = 100_000
"""Up to here a look-up goes through all rows: three fields take some 2 ms for 100,000, and as much for each 100,000
more. Candidates come in under 1 ms at any size, but each row has to be put into a graph first, which takes 0.07 ms, and
a few of those that are similar are missed: benchmarks/nodes.py."""


class Contexts:
    """Of the packets of one log. For many threads."""

    def __init__(self, definition: Definition, log: PacketLog) -> None:
        self.definition = definition
        self.texts: list[str | None] = []  # of each row, as it was first met
        self._log, self._reached = log, 0
        self._encoded = definition.encode([])
        self._row_of_text: dict[str | None, int] = {}
        self._row_of_values: dict[tuple[object, ...], int] = {}
        self._nearest = Nearest(definition, self._encoded)
        self._cursors, self._rows, self._mapped = Column(np.int64), Column(np.int32), 0
        self._thread: Thread | None = None
        self._is_closed = False
        self._adding, self._catching_up = Lock(), Lock()

    def scores_of(self, own: Context, packets: pa.RecordBatch) -> Scores:
        """The score of `own` with the context of each packet. Those that the index has kept up with are known by their
        cursors, which takes a tenth of the time that their texts do."""
        if (rows := self._rows_at(packets)) is not None:
            return self.definition.scores(own, self._encoded, rows)
        texts, which = _texts(packets.column("context").dictionary_encode())
        scores: Scores = self._of_texts(own, texts)[which]
        return scores

    def similar(self, own: Context, threshold: float, most: int) -> list[tuple[Context, float]]:
        """What is known of contexts that score at least `threshold` with `own`, at most so many, best first."""
        rows, scores = self.search(own, threshold, most)
        best = np.argsort(-scores, kind="stable")[:most]
        return [(self._seen(context_of(self.texts[rows[at]])), float(scores[at])) for at in best]

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

    def keep_up(self) -> None:
        """Catch up in the background: neither a reader nor a depositor waits for it."""
        if self._reached < self._log.head and not (self._thread and self._thread.is_alive()):
            self._thread = Thread(target=self.catch_up, name="qis-contexts", daemon=True)
            self._thread.start()

    def catch_up(self) -> None:
        """Take in what has been stored since the last time."""
        with self._catching_up:
            view = View(self._log, Pattern("*"))
            for batch, reached in view.after(self._reached, ["context"]):
                if self._is_closed:
                    return
                texts, which = _texts(batch.column("context").dictionary_encode())
                if self._take_in(texts) and self._mapped + len(which) <= MAX_PACKETS:
                    self._map(batch.column(CURSOR).to_numpy(), self._rows_of(texts)[which])
                self._reached = reached
            self._reached = view.head

    def close(self) -> None:
        self._is_closed = True
        if self._thread:
            self._thread.join()
        self._nearest.close()

    def _map(self, cursors: Rows, rows: Rows) -> None:
        self._cursors.append(cursors)
        self._rows.append(rows)
        self._mapped += len(rows)  # last: who reads as far as that finds both

    def _rows_at(self, packets: pa.RecordBatch) -> Rows | None:
        """None where there are packets among them that are not mapped."""
        if CURSOR not in packets.schema.names or not packets.num_rows:
            return None
        mapped = self._mapped
        known, cursors = self._cursors.array[:mapped], packets.column(CURSOR).to_numpy()
        if not mapped or cursors[-1] > known[-1]:
            return None
        at = known.searchsorted(cursors)
        return self._rows.array[at].astype(np.int64) if (known[at] == cursors).all() else None

    def _rows_of(self, texts: Sequence[str | None]) -> Rows:
        return np.fromiter((self._row_of_text[text] for text in texts), np.int64, len(texts))

    def _of_texts(self, own: Context, texts: Sequence[str | None]) -> Scores:
        if not self._take_in(texts):
            return self.definition.scores(own, self.definition.encode([context_of(text) for text in texts]))
        return self.definition.scores(own, self._encoded, self._rows_of(texts))

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
        fresh: dict[str | None, Context] = {}
        rows = []
        for text in texts:
            seen = self._seen(context_of(text))
            key = tuple(said(seen.get(name)) for name in self.definition.fields)
            following = len(self.texts) + len(fresh)
            rows.append(self._row_of_values.setdefault(key, following))
            if rows[-1] == following:
                fresh[text] = seen
        self._encoded.add(list(fresh.values()))
        self.texts += fresh
        self._row_of_text.update(zip(texts, rows, strict=True))  # last: who finds a text finds its row

    def _seen(self, context: Context) -> Context:
        """What the definition looks at."""
        return {name: context[name] for name in self.definition.fields if context.get(name) is not None}


def _texts(contexts: pa.DictionaryArray) -> tuple[list[str | None], Rows]:
    """The distinct texts, and for each packet which of them it has; where some have none the last is None."""
    texts = contexts.dictionary.to_pylist()
    if not contexts.indices.null_count:
        return texts, contexts.indices.to_numpy()
    return [*texts, None], contexts.indices.fill_null(len(texts)).to_numpy()
