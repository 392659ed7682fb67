"""Which packets are stored: their ids, the newest in memory, the others in sorted runs on the disk. With them are the
ids that chains.py keeps of signed ones.

Ids come in no order. A tree of them writes a page for every id once it is large; a run is written from end to end,
and eight of about one size become one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64

from qis_connectors.router.packet_log.drafts import whole_file
from qis_connectors.router.packet_log.record import DamagedError

MERGE = 8
_ID_BYTES = 16
_BLOCK = 1 << 20
"""Ids merged at a time: what bounds the memory of a merge."""

Ids = np.typing.NDArray[np.uint64]
"""Shape (n, 2): the halves of n ids."""


@dataclass(frozen=True)
class IdRun:
    """n ids by their first halves, ascending; `number` is its file's, 0 where it has none."""

    first: Ids
    second: Ids
    number: int = 0

    def __len__(self) -> int:
        return len(self.first)

    @property
    def checksum(self) -> int:
        """For SQLite, whose integers have a sign."""
        digest = xxh3_64(self.first.data)
        digest.update(self.second.data)
        return digest.intdigest() - (1 << 63)

    def has(self, ids: Ids) -> "np.typing.NDArray[np.bool_]":
        """Which of the ids are among these."""
        at = self.first.searchsorted(ids[:, 0])
        at[at == len(self.first)] = 0
        found: np.typing.NDArray[np.bool_] = self.first[at] == ids[:, 0]
        for row in np.flatnonzero(found & (self.second[at] != ids[:, 1])):
            same = slice(at[row], self.first.searchsorted(ids[row, 0], side="right"))
            found[row] = ids[row, 1] in self.second[same]
        return found


def id_run(ids: Ids) -> IdRun:
    order = ids[:, 0].argsort()
    return IdRun(ids[order, 0], ids[order, 1])


class PacketIndex:
    """The ids of the runs in `folder` of these numbers and checksums, and of those added since.

    Ids go in and out as 16 bytes each, one after the other. DamagedError where a run is not what was written.
    """

    def __init__(self, folder: Path, runs: Iterable[tuple[int, int]]) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.runs: tuple[IdRun, ...] = tuple(self._checked(*run) for run in runs)
        self._recent: set[bytes] = set()
        self._frozen: set[bytes] = set()

    def numbers(self) -> set[int]:
        return {int(path.stem) for path in self._folder.glob("*.ids")}

    def drop_unused(self) -> None:
        """Delete what a crash, or a commit that failed, has left."""
        for number in self.numbers() - {run.number for run in self.runs}:
            self._path(number).unlink()
        for draft in self._folder.glob("*.draft"):
            draft.unlink()

    def new(self, packed: bytes) -> "np.typing.NDArray[np.bool_] | None":
        """Which of these ids are new, of equal ones the first; None: all of them."""
        ids = split(packed)
        fresh = set(ids)
        frozen = self._frozen  # before the runs: what is forgotten meanwhile is in one of them
        known = self._known(packed)
        is_disjoint = self._recent.isdisjoint(fresh) and frozen.isdisjoint(fresh)
        if len(fresh) == len(ids) and is_disjoint and known is None:
            return None
        is_new = np.ones(len(ids), np.bool_) if known is None else ~known
        for row, one in enumerate(ids):
            if one in fresh and one not in self._recent and one not in frozen:
                fresh.remove(one)
            else:
                is_new[row] = False
        return is_new

    def holds(self, packed: bytes) -> list[bool]:
        """Which of these ids are known."""
        ids = split(packed)
        frozen = self._frozen  # before the runs, as in `new`
        in_runs = self._known(packed)
        found = [one in self._recent or one in frozen for one in ids]
        return found if in_runs is None else [a or b for a, b in zip(found, in_runs.tolist(), strict=True)]

    def add(self, packed: bytes) -> None:
        self._recent.update(split(packed))

    def freeze(self) -> None:
        """What was added up to here is what the next `write_frozen` writes."""
        self._frozen, self._recent = self._recent, set()

    def write_frozen(self, number: int) -> IdRun | None:
        """A run of what is frozen, on the disk but not in use yet; None where that is nothing."""
        if not self._frozen:
            return None
        return self.write(number, [id_run(unpacked(b"".join(self._frozen)))])

    def write(self, number: int, runs: Sequence[IdRun]) -> IdRun:
        """One run of all of these."""
        with whole_file(self._path(number)) as file:
            for half in range(2):
                for block in _merged(runs):
                    file.write(block[half].data)
        return self._open(number)

    def use(self, run: IdRun | None, instead_of: Sequence[IdRun] = ()) -> None:
        """From now on, and not these."""
        gone = {id(one) for one in instead_of}
        kept = tuple(one for one in self.runs if id(one) not in gone)
        self.runs = (*kept, run) if run else kept
        for one in instead_of:
            self._path(one.number).unlink(missing_ok=True)

    def forget_frozen(self) -> None:
        """It is in a run now."""
        self._frozen = set()

    def due(self) -> list[IdRun]:
        """Runs to be merged: as many of about one size as there may be."""
        sizes: dict[int, list[IdRun]] = {}
        for run in self.runs:
            sizes.setdefault(int(np.log2(len(run))) // 3, []).append(run)
        return next((alike for _, alike in sorted(sizes.items()) if len(alike) >= MERGE), [])

    def _known(self, packed: bytes) -> "np.typing.NDArray[np.bool_] | None":
        if not self.runs:
            return None
        return known_in(self.runs, unpacked(packed))

    def _checked(self, number: int, checksum: int) -> IdRun:
        try:
            run = self._open(number)
        except (OSError, ValueError):
            raise DamagedError from None
        if run.checksum != checksum:
            raise DamagedError
        return run

    def _open(self, number: int) -> IdRun:
        halves = np.memmap(self._path(number), np.uint64, "r").reshape(2, -1)
        return IdRun(halves[0], halves[1], number)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}.ids"


class Trial:
    """Ids that are new to an index, in memory until they are written: millions, where a set would take too much."""

    def __init__(self, index: PacketIndex) -> None:
        self.runs: list[IdRun] = []
        self._index = index

    def holds(self, packed: bytes) -> list[bool]:
        """Which of these are in the index or among the new."""
        found, here = self._index.holds(packed), known_in(self.runs, unpacked(packed))
        return found if here is None else [a or b for a, b in zip(found, here.tolist(), strict=True)]

    def add(self, packed: bytes) -> "np.typing.NDArray[np.bool_] | None":
        """Which of these are new, as `PacketIndex.new` tells."""
        is_new = self._index.new(packed)
        ids = unpacked(packed)
        known = known_in(self.runs, ids)
        if known is not None:
            is_new = ~known if is_new is None else is_new & ~known
        fresh = ids if is_new is None else ids[is_new]
        if len(fresh):
            self.runs.append(id_run(fresh))
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            self.runs[-2:] = [_together(self.runs[-2:])]
        return is_new


def known_in(runs: Sequence[IdRun], ids: Ids) -> "np.typing.NDArray[np.bool_] | None":
    """Which of the ids are in any of the runs; None: none of them."""
    order = ids[:, 0].argsort()  # neighbours lie near each other in a run
    ordered = ids[order]
    found = np.zeros(len(ids), np.bool_)
    for run in runs:
        found |= run.has(ordered)
    if not found.any():
        return None
    known = np.empty_like(found)
    known[order] = found
    return known


def split(packed: bytes) -> list[bytes]:
    return [packed[at : at + _ID_BYTES] for at in range(0, len(packed), _ID_BYTES)]


def unpacked(packed: bytes) -> Ids:
    return np.frombuffer(packed, "<u8").reshape(-1, 2)


def packed_ids(packet_id: Any) -> bytes:  # noqa: ANN401  # a pa.StringArray
    """Of a batch's packet_id column: 32 hexadecimal digits each."""
    return bytes.fromhex("".join(packet_id.to_pylist()))


def selected(packed: bytes, is_kept: "np.typing.NDArray[np.bool_]") -> bytes:
    return np.frombuffer(packed, f"V{_ID_BYTES}")[is_kept].tobytes()


def _together(runs: Sequence[IdRun]) -> IdRun:
    first, second = (np.concatenate([getattr(run, half) for run in runs]) for half in ("first", "second"))
    order = first.argsort()
    return IdRun(first[order], second[order])


def _merged(runs: Sequence[IdRun]) -> Iterator[tuple[Ids, Ids]]:
    """All ids in order, block by block."""
    blocks = max(1, sum(map(len, runs)) // _BLOCK)
    edges = np.linspace(0, 2.0**64, blocks + 1)[1:-1].astype(np.uint64)
    cuts = [[0, *run.first.searchsorted(edges).tolist(), len(run)] for run in runs]
    for block in range(blocks):
        parts = [(run, slice(cut[block], cut[block + 1])) for run, cut in zip(runs, cuts, strict=True)]
        first = np.concatenate([run.first[part] for run, part in parts])
        second = np.concatenate([run.second[part] for run, part in parts])
        order = first.argsort()
        yield first[order], second[order]
