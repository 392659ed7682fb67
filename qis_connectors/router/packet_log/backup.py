"""Backup: a copy of a store as it is at one moment, while a router serves it or not.

Packs and runs of ids never change, so they are copied at leisure. What is short, the catalogue and the journal, is
copied last, and again where a flush came in between: everything acknowledged before the backup began is in it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw

from qis_connectors.router.packet_log import record
from qis_connectors.router.packet_log.catalogue import Catalogue
from qis_connectors.router.packet_log.journal import sync_folder
from qis_connectors.router.packet_log.record import Record
from qis_connectors.router.packet_log.store import StoreError

_ATTEMPTS = 100
_IMMUTABLE = ("*.pack", "*.ids", "*.damaged")


def backup(store: Path, out: Path, copied: Callable[[int], None] = lambda _: None) -> int:
    """Copy the store in the folder `store` to the folder `out`, which must not exist; its bytes.

    `copied` hears of every file's bytes. What transactions have staged and not committed is not in it. A router can be
    started on `out` as it is. Raises StoreError where there is no store, or no room.
    """
    if not (store / "store.json").exists():
        raise StoreError(f"{store} holds no packet store")
    if not (store / "catalogue.db").exists():  # opening it would make one, in which nothing is
        raise StoreError(f"{store} has lost its catalogue, which a router on it makes anew: start one first")
    if out.exists():
        raise StoreError(f"{out} exists already; a backup goes to a folder of its own")
    draft = out.with_name(f"{out.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        for name in ("packs", "ids", "journal"):
            (draft / name).mkdir(parents=True)
        shutil.copy2(store / "store.json", draft)
        before: set[int] | None = None
        for _ in range(_ATTEMPTS):
            holes = _copied(store, draft, copied)
            if holes is not None and (not holes or before is not None):
                # What is missing twice at one place is missing in the store: a disk has damaged it. Behind any other
                # hole nothing had come when the backup began.
                _cut(draft / "journal", min(holes - (before or set()), default=None))
                break
            before = holes
        else:
            raise StoreError(f"{store} changes faster than it can be copied")
        _copy_profiles(store, draft)
        size = _settled(draft)
        draft.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise StoreError(f"{store} cannot be backed up to {out}: {error.strerror}") from None
    except apsw.Error as error:
        raise StoreError(f"{store} cannot be backed up: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return size


def _copied(store: Path, draft: Path, copied: Callable[[int], None]) -> set[int] | None:
    """Copies. None where what was copied is not of one moment; else the holes in its journal: files are copied one
    after the other, so that a later one may hold what was written when an earlier one was copied already.
    """
    _copy_new(store, draft, copied)
    for path in store.glob("quarantine.jsonl"):
        shutil.copyfile(path, draft / path.name)
    with closing(Catalogue(store / "catalogue.db")) as live:
        live.copy_to(draft / "catalogue.db")
        with closing(Catalogue(draft / "catalogue.db")) as snapshot:
            flushed = snapshot.flushed()
            wanted = {f"packs/{number:08}.pack" for number in snapshot.packs()}
            wanted |= {f"ids/{number:08}.ids" for number, _ in snapshot.id_runs()}
        _copy_new(store, draft, copied)
        if not all((draft / name).exists() for name in wanted):
            return None
        for path in (draft / "journal").iterdir():
            path.unlink()
        for path in (store / "journal").glob("*.journal"):
            try:
                shutil.copyfile(path, draft / "journal" / path.name)
            except FileNotFoundError:
                return None
        # A flush gives its journal back to be written over: with an older catalogue its packets would be nowhere.
        return _holes(draft / "journal", flushed) if live.flushed() == flushed else None


def _holes(folder: Path, flushed: int) -> set[int]:
    """Cursors behind `flushed` at which packets are missing that a journal's later records come after."""
    found = sorted((one.first, one.rows) for _, one in _records(folder) if one.first > flushed)
    ends = [flushed, *(first + rows - 1 for first, rows in found)]
    return {end for end, (first, _) in zip(ends, found, strict=False) if first != end + 1}


def _cut(folder: Path, cursor: int | None) -> None:
    """Take the journal's records behind a cursor away."""
    for path, one in list(_records(folder)):
        if cursor is not None and one.first > cursor:
            with path.open("r+b") as file:
                file.seek(one.position)
                file.write(bytes(len(record.MAGIC)))


def _records(folder: Path) -> Iterator[tuple[Path, Record]]:
    for path in folder.iterdir():
        data = path.read_bytes()
        for one in record.scan(memoryview(data), data):
            yield path, one


def _copy_profiles(store: Path, draft: Path) -> None:
    if (store / "profiles.db").exists():
        with closing(apsw.Connection(str(store / "profiles.db"))) as live:
            live.execute("VACUUM INTO ?", (str(draft / "profiles.db"),))


def _copy_new(store: Path, draft: Path, copied: Callable[[int], None]) -> None:
    for pattern in _IMMUTABLE:
        for path in store.glob(f"*/{pattern}"):
            to = draft / path.relative_to(store)
            if not to.exists() and to.parent.exists():
                try:
                    shutil.copyfile(path, to)
                    copied(to.stat().st_size)
                except FileNotFoundError:
                    to.unlink(missing_ok=True)


def _settled(draft: Path) -> int:
    size = 0
    for path in draft.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        size += path.stat().st_size if path.is_file() else 0
    return size
