"""Candidates for a look-up among more contexts than it is worth going through: a graph of their feature maps (HNSW:
Malkov & Yashunin 2020, IEEE TPAMI 42:824; the library is usearch).

A feature map turns a kernel into a dot product: that of the vector a context is looked up with and the one it is stored
under is about their score. Candidates are scored by the formula afterwards, so what is off here is at worst missed.

    exact, category   a unit vector for each value, one of random signs from the ONE_HOT-th on; looked up by the sum of
                      those that are alike, each times how much
    path              a vector for each leading part, over the root of their number
    numeric           cosines and sines at frequencies of the Gaussian's spectrum (Rahimi & Recht 2007, NeurIPS 20),
                      at its quantiles rather than at random
"""

from collections.abc import Iterable
from hashlib import blake2b
from statistics import NormalDist
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qis_connectors.kernels import NONE, Category, Exact, Kernel, Numeric, PathPrefix, Rows, Values, number, said
from qis_connectors.similarity import Context, Definition, Encoded

Vectors = NDArray[np.float32]
ONE_HOT = 16
RANDOM = 32
"""Beyond so many values a field's vectors are random: two of them have a product of about 1 / sqrt(RANDOM)."""

FREQUENCIES = 16
CHUNK_ROWS = 256
"""So many go into the graph at once; a look-up waits so long at most."""

CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 12, 32, 256
"""Of 30,000 contexts this found 0.9994 of those that are similar; the library's own 16 and 64 found all, and took 2.5
times as long to build."""


class Nearest:
    """Of the rows of an Encoded. The graph grows in a thread of its own, from the first time that candidates are asked
    for; rows that it has not yet are candidates all the same."""

    def __init__(self, definition: Definition, encoded: Encoded) -> None:
        self._definition, self._encoded = definition, encoded
        self._weights = _shares(definition)
        self._index: Any = None
        self._built = self._wanted = 0
        self._thread: Thread | None = None
        self._is_closed = Event()
        self._using = Lock()  # the graph moves as it grows

    def candidates(self, own: Context, size: int, threshold: float, most: int) -> Rows | None:
        """Of `size` rows; None where there may be more than `most` similar ones, or no graph yet."""
        self.grow(size)
        built = self._built
        if self._index is None or size - built > size // 4:
            return None
        with self._using:
            found = self._index.search(self._looked_up(own), most + 1)
        rows = np.asarray(found.keys, np.int64)
        if len(rows) > most and self._definition.scores(own, self._encoded, rows).min() >= threshold:
            return None
        return np.concatenate([rows, np.arange(built, size)])

    def grow(self, size: int) -> None:
        """To the rows below `size`, in the background."""
        self._wanted = max(self._wanted, size)
        if self._built < self._wanted and not (self._thread and self._thread.is_alive()):
            self._thread = Thread(target=self._build, name="qis-nearest", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Until the graph has what it was to grow to."""
        if self._thread:
            self._thread.join()

    def close(self) -> None:
        self._is_closed.set()
        self.wait()

    def _build(self) -> None:
        while self._built < self._wanted and not self._is_closed.is_set():
            rows = np.arange(self._built, min(self._built + CHUNK_ROWS, self._wanted))
            vectors = self._stored(rows)
            if self._index is None:
                from usearch.index import Index  # where there are so many; other routers need not load it

                self._index = Index(
                    ndim=vectors.shape[1],
                    metric="ip",
                    dtype="f16",
                    connectivity=CONNECTIVITY,
                    expansion_add=EXPANSION_ADD,
                    expansion_search=EXPANSION_SEARCH,
                )
            with self._using:
                self._index.add(rows.astype(np.uint64), vectors, threads=1)
            self._built = int(rows[-1]) + 1

    def _stored(self, rows: Rows) -> Vectors:
        parts = [
            weight * _stored(kernel, self._encoded.columns[name].array[rows], self._encoded.columns[name])
            for name, kernel, weight in self._weights
        ]
        vectors = np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0), np.float32)
        # All of one length, which the product then says nothing of: a graph of products needs that to be searched well.
        rest = np.sqrt(np.maximum(0, 1 - (vectors**2).sum(axis=1)))
        return np.concatenate([vectors, rest[:, None]], axis=1).astype(np.float32)

    def _looked_up(self, own: Context) -> Vectors:
        parts = [
            weight * _looked_up(kernel, own.get(name), self._encoded.columns[name])
            for name, kernel, weight in self._weights
        ]
        return np.concatenate([*parts, np.zeros(1)]).astype(np.float32)


def _shares(definition: Definition) -> list[tuple[str, Kernel, float]]:
    total = sum(kernel.weight for kernel in definition.fields.values())
    return [(name, kernel, (kernel.weight / total) ** 0.5) for name, kernel in definition.fields.items()]


def _stored(kernel: Kernel, values: NDArray[np.float64] | Rows, column: object) -> Vectors:
    if isinstance(kernel, Numeric):
        return _waves(values / kernel.scale)
    assert isinstance(column, Values)
    codes, which = np.unique(values, return_inverse=True)
    if isinstance(kernel, PathPrefix):
        table = [_sum((prefix, 1.0) for prefix in _prefixes(_at(column, code))) for code in codes]
    else:
        table = [_sum([] if code == NONE else [(said(column.distinct[code]), 1.0)], column) for code in codes]
    found: Vectors = np.array(table, np.float32)[which]
    return found


def _looked_up(kernel: Kernel, own: object, column: object) -> Vectors:
    if isinstance(kernel, Numeric):
        (wave,) = _waves(np.array([number(own)]) / kernel.scale)
        return np.asarray(wave)
    assert isinstance(column, Values)
    if isinstance(kernel, PathPrefix):
        return _sum((prefix, 1.0) for prefix in _prefixes(own))
    assert isinstance(kernel, Exact | Category)
    return _sum(dict(kernel.alike_to(said(own))).items(), column)


def _at(column: Values, code: int) -> object:
    return None if code == NONE else column.distinct[code]


def _waves(values: NDArray[np.float64]) -> Vectors:
    normal = NormalDist()
    frequencies = np.array([normal.inv_cdf((at + 0.5) / (2 * FREQUENCIES) + 0.5) for at in range(FREQUENCIES)])
    with np.errstate(over="ignore", invalid="ignore"):
        phases = np.asarray(values)[:, None] * frequencies
        waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / FREQUENCIES**0.5
    return np.asarray(np.nan_to_num(waves, nan=0.0), np.float32)


def _prefixes(value: object) -> list[str]:
    """The leading parts of a path, shortest first."""
    if not isinstance(value, str):
        return []
    segments = value.split("/")
    return ["/".join(segments[: at + 1]) for at in range(len(segments))]


def _sum(parts: Iterable[tuple[object, float]], column: Values | None = None) -> Vectors:
    """Values' vectors, each times a number; without a column those of a path's parts, over the root of their number."""
    listed = list(parts)
    total = np.zeros(ONE_HOT + RANDOM, np.float32)
    for value, times in listed:
        code = ONE_HOT if column is None else column.code_of.get(value, NONE)
        if 0 <= code < ONE_HOT:
            total[code] += times
        elif code != NONE:
            digest = blake2b(repr(value).encode(errors="replace"), digest_size=RANDOM // 8).digest()
            signs = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32) * 2 - 1
            total[ONE_HOT:] += times * signs / RANDOM**0.5
    if column is None and listed:
        total /= np.float32(len(listed) ** 0.5)
    return total
