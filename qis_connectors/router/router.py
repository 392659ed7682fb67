"""The router: its log, its port, its end."""

import logging
import signal
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Self

import pyarrow as pa

from qis_connectors.keys import PublicKeys
from qis_connectors.router.audit_log import AuditLog
from qis_connectors.router.entry import Entry
from qis_connectors.router.listen import (
    ListenError,
    authority,
    cut_connections,
    endpoint,
    metrics_endpoint,
    wait_for_signal,
)
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.retention import KEEP_ALL, Retention
from qis_connectors.router.quotas import UNBOUNDED, Quotas, load
from qis_connectors.router.service import Service
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions

GRACE_SECONDS = 2.0
logger = logging.getLogger(__name__)


class Router:
    """A router on the store in the folder `store`, serving from construction until `close`.

    It keeps every packet unless `retention` says otherwise. With `metrics`, a port or HOST:PORT, a Prometheus finds its
    metrics at `metrics_url`. With `keys`, a folder of the sites' public keys, it takes only packets that they have
    signed; `quotas` is a file that says what each may use.

    Raises QisError where the store is in use, damaged or newer than this version, or `listen` is not free loopback.
    """

    def __init__(
        self,
        store: Path,
        listen: str = "grpc://127.0.0.1:8815",
        metrics: str | None = None,
        retention: Retention = KEEP_ALL,
        keys: Path | None = None,
        quotas: Path | None = None,
    ) -> None:
        host, port = endpoint(listen)
        self._folder = store
        beside = None if metrics is None else metrics_endpoint(metrics)
        began = perf_counter()
        entry = Entry(PublicKeys(keys) if keys else None, Quotas(load(quotas) if quotas else UNBOUNDED))
        with ExitStack() as stack:
            # Before the server: pyarrow answers calls while its constructor is still running.
            self._packets = PacketLog(store, retention, entry.check)
            stack.callback(self._packets.close)
            audit = AuditLog(store / "audit")
            stack.callback(audit.close)
            self._transactions = Transactions(self._packets)
            status = Status(self._packets, audit)
            self.metrics_url = None
            if beside:
                from qis_connectors.router import metrics as exposition  # a router without them need not load HTTP

                self.metrics_url = stack.enter_context(exposition.serving(status, *beside))
            try:
                self._server = Service(f"grpc://{authority(host, port)}", status, self._transactions, entry)
            except pa.ArrowException as error:
                raise ListenError(f"cannot listen on {listen}: {str(error).splitlines()[0]}") from None
            self._open = stack.pop_all()
        self.url = f"grpc://{authority(host, self._server.port)}"
        self.store = self._packets.store.identity
        self._recovery_seconds = round(perf_counter() - began, 3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit and acknowledge what has arrived, let running calls end for two seconds, then end them."""
        if self._packets.stop():
            cut = Timer(GRACE_SECONDS, cut_connections, [self._server.port])
            cut.start()
            self._server.idle.stop()
            self._server.shutdown()
            cut.cancel()
            cut.join()
            self._transactions.close()
            self._open.close()

    def serve(self) -> None:
        """Block until SIGINT or SIGTERM, then close. For a process's main thread."""
        try:
            wait_for_signal(signal.SIGINT, signal.SIGTERM, ready=self._log_start)
        finally:
            logger.info("stopping", extra={"url": self.url})
            self.close()
            logger.info("stopped", extra={"url": self.url, "cursor": self._packets.head})

    def _log_start(self) -> None:
        details = {"url": self.url, "folder": str(self._folder), "store": self.store, "metrics": self.metrics_url}
        recovered = {"cursor": self._packets.head, "recovery_seconds": self._recovery_seconds}
        logger.info("started", extra={**details, **recovered})
