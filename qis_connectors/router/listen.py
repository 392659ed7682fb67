"""Where a router listens, and how it stops."""

import signal
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from qis_connectors.errors import QisError
from qis_connectors.router.caller import host


class ListenError(QisError):
    """The router cannot or must not listen there."""


PLAIN = "grpc://127.0.0.1:8815"
STRICT = "grpc+tls://0.0.0.0:8815"


def endpoint(url: str, *, is_strict: bool) -> tuple[str, int]:
    """Host and port (0: a free one) of a `grpc+tls://` URL for a router that is strict, of a `grpc://` one for another.

    Raises ListenError where it is none, is taken, or is not on loopback though plain gRPC proves nobody's identity.
    """
    schemes = ("grpc+tls",) if is_strict else ("grpc", "grpc+tcp")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme == "grpc+tls" and not is_strict:
        raise ListenError(f"cannot listen on {url}: TLS needs a network; qis network init makes one")
    if host is None or port is None or scheme not in schemes:
        raise ListenError(f"cannot listen on {url!r}: it is not written {schemes[0]}://HOST:PORT")
    if not is_strict and not _is_loopback(host):
        raise ListenError(f"cannot listen on {url}: without TLS a router listens on loopback only, such as 127.0.0.1")
    if port:
        _check_free(host, port, url)
    return host, port


def metrics_endpoint(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, or of `PORT` on 127.0.0.1; ListenError where it is neither."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ListenError(f"cannot serve metrics on {text!r}: it is not written HOST:PORT or PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cut_connections(port: int, peer: str | None = None) -> None:
    """Shut down every connection this process has accepted on `port`, or the one that gRPC calls `peer`.

    gRPC's own shutdown waits for open streams for ever, and pyarrow passes it no deadline.
    """
    for descriptor in Path("/dev/fd").iterdir():
        try:
            connection = socket.socket(fileno=int(descriptor.name))
        except OSError:
            continue  # no socket, or closed meanwhile
        try:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == port:
                far = connection.getpeername()  # the listening socket has none
                # A socket for both families has IPv4 peers as ::ffff:127.0.0.1, which gRPC does not say.
                there = far[0].removeprefix("::ffff:"), str(far[1])
                if peer is None or (host(peer), peer.rpartition(":")[2]) == there:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
        finally:
            connection.detach()  # it is gRPC's to close


def wait_for_signal(*numbers: int, ready: Callable[[], None]) -> None:
    """Block the main thread until one of these signals comes; `ready` is called once none can be lost.

    One of gRPC's threads may catch it, which does not wake this thread: Python runs the handler when it wakes for
    another reason. And an Event that a handler sets while this thread is inside its wait is a deadlock. The wakeup
    socket is written to by whichever thread catches the signal, and takes no lock.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        socket_before = signal.set_wakeup_fd(writer.fileno())
        handlers_before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            ready()
            while reader.recv(1)[0] not in numbers:
                pass
        finally:
            for number, handler in handlers_before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(socket_before)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_free(host: str, port: int, url: str) -> None:
    # gRPC would say the same on stderr, in its own words and several lines.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ListenError(f"cannot listen on {url}: {reason}") from None
