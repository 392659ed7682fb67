"""Transactions: packets staged on the disk where no reader sees them, until one commit stores all of them or an abort
drops them. Spark's tasks stage, its driver commits; a task that ran twice leaves packets that the commit knows again.

An open transaction is a file of its own, `staged/ID/packets.records` in the store's folder: its fsyncs keep no
depositor waiting, and dropping it gives the room back at once. The commit writes the packets, and the ID with its
receipt, in one SQLite transaction of the store: what a crash left of a transaction whose ID stands there is rubbish.
"""

import logging
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial
from threading import Lock
from uuid import uuid4

import apsw
import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.outgoing import by_address
from qis_connectors.receipt import Receipt, decode
from qis_connectors.router.deposit import Stage
from qis_connectors.router.packet_log.journal import sync_folder
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.store import StoreError, refusal
from qis_connectors.router.staging import Staging, write_owner

IDLE_SECONDS = 3600
"""A transaction nobody has staged in for longer is aborted, when next any transaction is begun, joined or ended."""

MAX_OPEN = 100
REMEMBERED_SECONDS = 7 * 86_400
"""A commit is answered again with its receipt for so long."""

_ID = re.compile(r"[0-9a-f]{32}")
_KEY = "key "
"""Before a client's key, so that none is a transaction's ID."""

logger = logging.getLogger(__name__)


def _allow(_: str) -> None:
    """Anybody may deposit anywhere."""


class TransactionError(QisError):
    """The transaction is not open, or too many are."""


class Transactions:
    """Those of one log; the ones that were open when the router ended are open again."""

    def __init__(self, log: PacketLog) -> None:
        self._log = log
        self._folder = log.store.folder / "staged"
        self._open: dict[str, Staging] = {}
        self._changing, self._under_key = Lock(), Lock()
        for folder in self._folder.glob("*"):
            if not _ID.fullmatch(folder.name) or self._receipt(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._open[folder.name] = Staging(folder)

    def begin(self, owner: str = "") -> str:
        """The ID of a new transaction, which nobody but its owner may go on with; TransactionError where MAX_OPEN are
        open."""
        self._abort_idle()
        with self._changing:
            if len(self._open) >= MAX_OPEN:
                raise TransactionError(f"{MAX_OPEN} transactions are open; commit or abort one of them first")
            name = uuid4().hex
            try:
                self._folder.mkdir(exist_ok=True)
                (self._folder / name).mkdir()
                if owner:
                    write_owner(self._folder / name, owner)
                for folder in (self._folder / name, self._folder, self._folder.parent):
                    sync_folder(folder)
            except OSError as error:
                raise StoreError(f"the router cannot begin a transaction: {error.strerror}") from None
            self._open[name] = Staging(self._folder / name)
        return name

    def stream(self, name: str, address: str | None, allow: Callable[[str], object] = _allow, owner: str = "") -> Stage:
        """What stages complete packets, all for `address` or each for that of its domain and problem_type.

        `allow` is asked about each address, and raises QisError where nothing may be deposited there. TransactionError
        where the transaction is not open.
        """
        self._abort_idle()
        staging = self._find(name, owner)

        def stage(packets: pa.RecordBatch, done: Callable[[Receipt | QisError], None]) -> None:
            table = pa.Table.from_batches([packets])
            try:
                parts = [(address, table)] if address else list(by_address(table))
                for where, _ in parts:
                    allow(where)
                staged = staging.add([(where, rows.combine_chunks().to_batches()[0]) for where, rows in parts])
            except QisError as error:
                done(error)
            except Exception as error:
                logger.exception("staging failed")
                done(refusal("stage packets", error))
            else:
                done(Receipt(staged=staged))

        return stage

    def commit(self, name: str, owner: str = "", key: str | None = None) -> Receipt:
        """Everything staged becomes visible at once; once more, the same receipt. Where this `owner` has committed a
        transaction under this `key` before, this one is dropped and that one's receipt is given.

        TransactionError where it is not open and never was committed, StoreError where the disk refuses: it is still
        open then.
        """
        self._abort_idle()
        names = [name] if key is None else [name, f"{_KEY}{owner} {key}"]
        if name not in self._open and (receipt := self._receipt(*names)):
            return receipt
        staging = self._find(name, owner)
        # Two transactions under one key, at one time: the second has to see that the first is committed.
        with staging.lock, self._under_key if key else nullcontext():
            if receipt := self._receipt(*names):  # or by somebody else, while we waited for the lock
                if staging.is_open:
                    self._drop(name, staging)
                return receipt
            staging.check_open()
            answer: Future[Receipt | QisError] = Future()
            self._log.commit(staging.parts(), partial(_record, names), answer.set_result)
            receipt_or_error = answer.result()
            if isinstance(receipt_or_error, QisError):
                raise receipt_or_error
            self._drop(name, staging)
        return receipt_or_error

    def abort(self, name: str, owner: str = "") -> None:
        """Nothing of it is kept; once more, or where it never was, does nothing. TransactionError where committed."""
        self._abort_idle()
        if staging := self._open.get(name):
            _check_owner(staging, name, owner)
            with staging.lock:
                if staging.is_open:
                    self._drop(name, staging)
        if self._receipt(name):
            raise TransactionError(f"transaction {name} is committed: it cannot be aborted")

    def close(self) -> None:
        """Let go of the files; what is staged stays."""
        for staging in self._open.values():
            with staging.lock:
                staging.close()

    def _find(self, name: str, owner: str) -> Staging:
        try:
            staging = self._open[name]
        except KeyError:
            why = "it is committed" if self._receipt(name) else "it was aborted, idle for over an hour, or never begun"
            raise TransactionError(f"transaction {name!r:.60} is not open: {why}") from None
        _check_owner(staging, name, owner)
        return staging

    def _receipt(self, *names: str) -> Receipt | None:
        """What was committed under one of the names."""
        sql = f"SELECT receipt FROM committed WHERE id IN ({', '.join('?' * len(names))}) LIMIT 1"
        with self._log.store.catalogue.reading() as connection:
            found = connection.execute(sql, names).get
        return found and decode(found.encode())

    def _abort_idle(self) -> None:
        with self._changing:
            idle = [(name, staging) for name, staging in self._open.items() if staging.idle_seconds() > IDLE_SECONDS]
        for name, staging in idle:
            with staging.lock:
                if staging.is_open and staging.idle_seconds() > IDLE_SECONDS:
                    logger.warning("transaction %s was idle for over an hour and is aborted", name)
                    self._drop(name, staging)

    def _drop(self, name: str, staging: Staging) -> None:
        staging.drop()
        with self._changing:
            self._open.pop(name, None)


def _check_owner(staging: Staging, name: str, owner: str) -> None:
    if staging.owner != owner:
        raise TransactionError(f"transaction {name} was begun by another member")


def _record(names: list[str], writer: apsw.Connection, receipt: Receipt) -> None:
    now = int(time.time())
    writer.execute("DELETE FROM committed WHERE at < ?", (now - REMEMBERED_SECONDS,))
    writer.executemany(
        "INSERT INTO committed VALUES (?, ?, ?)", [(name, receipt.encode().decode(), now) for name in names]
    )
