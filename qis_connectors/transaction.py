"""A transaction as its client sees it: deposits that nobody reads until the commit, which shows all of them at once."""

import json
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from qis_connectors.errors import QisError
from qis_connectors.outgoing import checked
from qis_connectors.receipt import Receipt, decode


class Transaction:
    """From `RouterClient.transaction()`:

        with client.transaction() as transaction:
            transaction.deposit(table)

    commits at the end of the block and aborts where it raises. `transaction(id)`, in any process, joins: its deposits
    are part of it too, and a `with` around those ends nothing. The router aborts what is idle for over an hour.
    Every method raises QisError, in one line, where the router cannot be reached or refuses.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        stage: Callable[[bytes, pa.Table], Receipt],
        act: Callable[[str, dict[str, Any]], dict[str, Any]],
        *,
        is_ours: bool,
    ) -> None:
        self.id = id
        self._stage, self._act, self._is_ours = stage, act, is_ours

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._is_ours and kind is None:
            self.commit()
        elif self._is_ours:
            with suppress(QisError):  # what went wrong in the block is what the caller has to hear
                self.abort()

    def deposit(self, packets: pa.Table | pa.RecordBatch, address: str | None = None) -> Receipt:
        """Stage packets, each for the address of its domain and problem_type or all for `address`; waits for the disk.

        Everything is checked before anything is sent: PacketError names field and row. Where it fails midway some are
        staged: stage all of them again, the commit stores each once. The receipt's `staged` counts them.
        """
        command = {"v": 1, "transaction": self.id, "address": address}
        return self._stage(json.dumps(command).encode(), checked(packets))

    def commit(self, key: str | None = None) -> Receipt:
        """Store everything that is staged, all at once; again, even after a lost connection, the same receipt.

        `key` is the caller's own name for this piece of work, such as a query and the number of its batch. Where a
        transaction was committed under it before, this one is dropped and the receipt is that one's: work that is done
        over after a crash is stored once, even where it does not make the same packets again. Routers forget keys
        after a week.
        """
        fields = {"transaction": self.id} | ({} if key is None else {"key": key})
        return decode(json.dumps(self._act("commit", fields)).encode())

    def abort(self) -> None:
        """Drop everything that is staged; again, nothing. QisError where it is committed."""
        self._act("abort", {"transaction": self.id})
