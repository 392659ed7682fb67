"""The store: one folder, held by one router process at a time.

    store.json        its format and identity
    journal/*.journal what was acknowledged last, in the order it came: see journal.py
    packs/*.pack      everything else, by address: see packs.py
    catalogue.db      where in the packs an address is: see catalogue.py
    ids/*.ids         which packets are in the packs: see packet_index.py
    profiles.db       the router's own, beside the log: see router/profiles.py

The first three are the truth. The catalogue and the ids are made anew from them where they are damaged or gone.
"""

import errno
import fcntl
import json
import logging
import os
import time
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import apsw
import numpy as np
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.router.packet_log.catalogue import Catalogue
from qis_connectors.router.packet_log.chunk import CURSOR, Chunk
from qis_connectors.router.packet_log.journal import Journal, sync_folder
from qis_connectors.router.packet_log.packet_index import PacketIndex
from qis_connectors.router.packet_log.packs import Packs
from qis_connectors.router.packet_log.rebuilding import rebuild
from qis_connectors.router.packet_log.record import DamagedError

FORMAT = 2
logger = logging.getLogger(__name__)


class StoreError(QisError):
    """The store cannot be opened, read or written."""


def refusal(what: str, error: Exception) -> StoreError:
    """What a client hears of a disk that did not take something."""
    is_full = isinstance(error, apsw.FullError) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )
    reason = "the disk is full" if is_full else "its log has the details"
    return StoreError(f"the router cannot {what}: {reason}")


class Store:
    """Opens the store in `folder`, made if there is none, and puts right what a crash left.

    Raises StoreError where another router holds it, where another version wrote it, or where it is no store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _lock(folder)
        try:
            self.identity = _identity(folder)
            self.packs = Packs(folder / "packs")
            self.packs.drop_drafts()
            self.catalogue, self.index = self._opened()
            self._drop_unused()
            self.journal = Journal(folder / "journal")
            sync_folder(folder)  # the names of all these, before anything is acknowledged that is in them
        except OSError as error:
            os.close(self._lock)
            raise StoreError(f"store {folder} cannot be opened: {error.strerror}") from None
        except apsw.Error as error:
            os.close(self._lock)
            raise StoreError(f"store {folder} cannot be opened: {error}") from None
        except StoreError:
            os.close(self._lock)
            raise
        self._next = max([0, *self.packs.numbers(), *self.index.numbers()])

    def next_number(self) -> int:
        """For a new pack or run of ids. Hold the packer's lock."""
        self._next += 1
        return self._next

    def live_chunks(self, span: int) -> list[Chunk]:
        """What the catalogue has of a span, record by record; within each address in the order of the cursors."""
        chunks = []
        for (pack, position), found in groupby(self.catalogue.runs_in(span), lambda one: one[0][:2]):
            runs = list(found)
            try:
                whole = self.packs.read(pack, position)
            except DamagedError:
                self.packs.keep_damaged(pack)
                continue
            if sum(piece.packets for piece, _ in runs) < whole.num_rows:
                live = np.zeros(whole.num_rows, np.bool_)
                for piece, _ in runs:
                    live[piece.start : piece.start + piece.packets] = True
                whole = whole.filter(pa.array(live))
            of_record = tuple((address, piece.packets) for piece, address in runs)
            cursors = whole[CURSOR].to_numpy()
            chunks.append(Chunk(whole, of_record, int(cursors.min()), int(cursors.max())))
        return chunks

    def close(self) -> None:
        self.catalogue.close()
        os.close(self._lock)

    def _opened(self) -> tuple[Catalogue, PacketIndex]:
        path = self.folder / "catalogue.db"
        ids = self.folder / "ids"
        if path.exists() or not self.packs.numbers():
            with suppress(apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError, DamagedError):
                catalogue = Catalogue(path)
                try:
                    if catalogue.is_sound() and self.packs.numbers().issuperset(catalogue.packs()):
                        return catalogue, PacketIndex(ids, catalogue.id_runs())
                except BaseException:
                    catalogue.close()
                    raise
                catalogue.close()
            path.rename(path.with_suffix(".damaged"))
        logger.error("the catalogue, the ids or a pack is damaged or gone: the catalogue is made anew")
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        rebuild(path, self.packs, ids)
        catalogue = Catalogue(path)
        return catalogue, PacketIndex(ids, catalogue.id_runs())

    def _drop_unused(self) -> None:
        """What was written, or was to be deleted, when a crash came before the catalogue could say so."""
        self.packs.drop(self.packs.numbers() - set(self.catalogue.packs()))
        self.index.drop_unused()


def _lock(folder: Path) -> int:
    try:
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for one in made:
            sync_folder(one.parent)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"store {folder} cannot be opened: {error.strerror}") from None
    try:
        # Gone with the process, however it ends: a store needs no unlocking after a crash.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(f"store {folder} is in use by another router") from None
    return lock


def _identity(folder: Path) -> str:
    path = folder / "store.json"
    if not path.exists():
        if (folder / "packets.db").exists():
            raise StoreError(f"store {folder} was written by an older version (format 1; this one knows {FORMAT})")
        foreign = [entry.name for entry in folder.iterdir() if entry.name not in ("lock", "store.draft")]
        if foreign:
            raise StoreError(f"store {folder} cannot be opened: it holds {foreign[0]!r} and is not a packet store")
        draft = path.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump({"format": FORMAT, "store": str(uuid4()), "made": int(time.time())}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync_folder(folder)
    try:
        told = json.loads(path.read_text())
        version, identity = int(told["format"]), str(told["store"])
    except (ValueError, TypeError, KeyError):
        raise StoreError(f"store {folder} cannot be opened: {path.name} cannot be read") from None
    if version > FORMAT:
        raise StoreError(f"store {folder} was written by a newer version (format {version}; this one knows {FORMAT})")
    return identity
