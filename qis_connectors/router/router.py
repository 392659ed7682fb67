"""The router: its log, its port, its end."""

import signal
from pathlib import Path
from threading import Timer
from typing import Self

import pyarrow as pa

from qis_connectors.router.listen import ListenError, authority, cut_connections, endpoint, wait_for_signal
from qis_connectors.router.log import PacketLog
from qis_connectors.router.service import Service
from qis_connectors.router.transactions import Transactions

GRACE_SECONDS = 2.0


class Router:
    """A router on the store in the folder `store`, serving from construction until `close`.

    Raises QisError where the store is in use, damaged or newer than this version, or `listen` is not free loopback.
    """

    def __init__(self, store: Path, listen: str = "grpc://127.0.0.1:8815") -> None:
        host, port = endpoint(listen)
        # Before the server: pyarrow answers calls while its constructor is still running.
        self._packets = PacketLog(store)
        self._transactions = Transactions(self._packets)
        try:
            self._server = Service(f"grpc://{authority(host, port)}", self._packets, self._transactions)
        except pa.ArrowException as error:
            self._packets.close()
            raise ListenError(f"cannot listen on {listen}: {str(error).splitlines()[0]}") from None
        self.url = f"grpc://{authority(host, self._server.port)}"
        self.store = self._packets.store.identity

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit and acknowledge what has arrived, let running calls end for two seconds, then end them."""
        if self._packets.stop():
            cut = Timer(GRACE_SECONDS, cut_connections, [self._server.port])
            cut.start()
            self._server.shutdown()
            cut.cancel()
            cut.join()
            self._transactions.close()
            self._packets.close()

    def serve(self) -> None:
        """Block until SIGINT or SIGTERM, then close. For a process's main thread."""
        try:
            wait_for_signal(signal.SIGINT, signal.SIGTERM)
        finally:
            self.close()
