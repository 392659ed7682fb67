"""A way to a router that counts what the router sends: what is pushed down shows in bytes, not in time. It may be as
narrow as the link between two institutions is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SOL_SOCKET, create_connection, create_server, socket

SO_MAX_PACING_RATE = 47  # of Linux


@contextmanager
def counting_proxy(url: str, pace: int | None = None) -> Iterator[tuple[str, list[int]]]:
    """(url, sent): a way to a router, and how many bytes it has sent so far on each connection; at most `pace` a
    second on each, where that is given."""
    scheme, _, place = url.partition("://")
    host, port = place.split(":")
    sent: list[int] = []
    with create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_accept, args=(door, (host, int(port)), sent, pace), daemon=True).start()
        yield f"{scheme}://127.0.0.1:{door.getsockname()[1]}", sent


def _accept(door: socket, target: tuple[str, int], sent: list[int], pace: int | None) -> None:
    while True:
        try:
            client, _ = door.accept()
        except OSError:
            return
        try:
            router = create_connection(target)
        except OSError:
            client.close()
            continue
        if pace:
            client.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, pace)
        sent.append(0)
        threading.Thread(target=_pump, args=(client, router, [0], 0), daemon=True).start()
        threading.Thread(target=_pump, args=(router, client, sent, len(sent) - 1), daemon=True).start()


def _pump(source: socket, target: socket, counts: list[int], at: int) -> None:
    try:
        while data := source.recv(1 << 16):
            counts[at] += len(data)
            target.sendall(data)
    except OSError:
        pass
    finally:
        for one in (source, target):
            one.close()
