"""A way to a router that counts what the router sends: what is pushed down shows in bytes, not in time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_connection, create_server, socket


@contextmanager
def counting_proxy(url: str) -> Iterator[tuple[str, list[int]]]:
    """(url, sent): a way to a router, and how many bytes it has sent so far on each connection."""
    host, port = url.removeprefix("grpc://").split(":")
    sent: list[int] = []
    with create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_accept, args=(door, (host, int(port)), sent), daemon=True).start()
        yield f"grpc://127.0.0.1:{door.getsockname()[1]}", sent


def _accept(door: socket, target: tuple[str, int], sent: list[int]) -> None:
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
