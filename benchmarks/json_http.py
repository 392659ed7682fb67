"""The same packets as JSON over HTTP: a small starlette app and its client, which say how long (de)serialising took."""

import json
import socket
import sys
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pyarrow as pa
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def serve() -> None:
    stored: list[dict[str, object]] = []

    async def deposit(request: Request) -> Response:
        stored.extend(json.loads(await request.body()))
        return Response(json.dumps({"stored": len(stored)}))

    async def read(_: Request) -> Response:
        started = time.perf_counter()
        body = json.dumps(stored).encode()
        return Response(body, headers={"seconds": str(time.perf_counter() - started)})

    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    app = Starlette(routes=[Route("/", deposit, methods=["POST"]), Route("/", read)])
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run([listener])


def deposit(url: str, table: pa.Table) -> None:
    _ask(url, "POST", json.dumps(table.to_pylist()).encode())


def read(url: str, schema: pa.Schema) -> tuple[float, float]:
    """Seconds until the packets are an Arrow table, and how many of them went into text and back."""
    started = time.perf_counter()
    body, serialising = _ask(url, "GET")
    received = time.perf_counter()
    pa.Table.from_pylist(json.loads(body), schema=schema)
    ended = time.perf_counter()
    return ended - started, serialising + ended - received


def _ask(url: str, method: str, body: bytes | None = None) -> tuple[bytes, float]:
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request(method, "/", body)
    answer = connection.getresponse()
    try:
        return answer.read(), float(answer.headers.get("seconds", 0))
    finally:
        connection.close()
