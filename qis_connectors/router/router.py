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
from qis_connectors.network.certificates import router_tls
from qis_connectors.router.access import Access
from qis_connectors.router.audit_log import AuditLog
from qis_connectors.router.entry import Entry
from qis_connectors.router.listen import (
    PLAIN,
    STRICT,
    ListenError,
    authority,
    cut_connections,
    endpoint,
    metrics_endpoint,
    wait_for_signal,
)
from qis_connectors.router.packet_log.log import PacketLog
from qis_connectors.router.packet_log.retention import KEEP_ALL, Retention
from qis_connectors.router.profiles import Profiles
from qis_connectors.router.quotas import UNBOUNDED, Quotas, load
from qis_connectors.router.service import Service
from qis_connectors.router.similar import Similar
from qis_connectors.router.status import Status
from qis_connectors.router.transactions import Transactions
from qis_connectors.similarity import Definitions

GRACE_SECONDS = 2.0
logger = logging.getLogger(__name__)


class Router:
    """A router on the store in the folder `store`, serving from construction until `close`.

    With `network`, a network's folder, it is strict: nobody but members comes in, over mutual TLS, and each may do what
    the network's policy says. Without one it serves whoever is on this machine, on loopback.
    It keeps every packet unless `retention` says otherwise. With `metrics`, a port or HOST:PORT, a Prometheus finds its
    metrics at `metrics_url`. Readers can ask by the similarity definitions in the folder `similarity`. With `keys`, a
    folder of the sites' public keys, it takes only packets that they have signed; `quotas` is a file that says what
    each may use.

    Raises QisError where a definition is wrong, where the store is in use, damaged or newer than this version, or where
    `listen` is not free loopback.
    """

    def __init__(
        self,
        store: Path,
        listen: str | None = None,
        metrics: str | None = None,
        retention: Retention = KEEP_ALL,
        similarity: Path | None = None,
        network: Path | None = None,
        keys: Path | None = None,
        quotas: Path | None = None,
    ) -> None:
        listen = listen or (STRICT if network else PLAIN)
        host, port = endpoint(listen, is_strict=network is not None)
        scheme = "grpc+tls" if network else "grpc"
        access, tls = Access(network), router_tls(network) if network else {}
        self._folder = store
        definitions = Definitions.none() if similarity is None else Definitions.read(similarity)
        beside = None if metrics is None else metrics_endpoint(metrics)
        began = perf_counter()
        bounds = Quotas(load(quotas) if quotas else UNBOUNDED)
        entry = Entry(PublicKeys(keys) if keys else None, bounds, knows_callers=network is not None)
        with ExitStack() as stack:
            # Before the server: pyarrow answers calls while its constructor is still running.
            self._packets = PacketLog(store, retention, entry.check)
            stack.callback(self._packets.close)
            audit = AuditLog(store / "audit")
            stack.callback(audit.close)
            self._transactions = Transactions(self._packets)
            status = Status(self._packets, audit)
            similar = Similar(self._packets, definitions)
            stack.callback(similar.close)
            profiles = Profiles(store, similar)
            stack.callback(profiles.close)
            self.metrics_url = None
            if beside:
                from qis_connectors.router import metrics as exposition  # a router without them need not load HTTP

                self.metrics_url = stack.enter_context(exposition.serving(status, *beside))
            try:
                location = f"{scheme}://{authority(host, port)}"
                self._server = Service(location, tls, access, entry, status, self._transactions, similar, profiles)
            except pa.ArrowException as error:
                raise ListenError(f"cannot listen on {listen}: {str(error).splitlines()[0]}") from None
            self._open = stack.pop_all()
        self.url = f"{scheme}://{authority(host, self._server.port)}"
        self._network = network
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
        mode = f"strict: members of {self._network}" if self._network else "plain: anybody on this machine, by any name"
        logger.info("started", extra={**details, **recovered, "mode": mode})
