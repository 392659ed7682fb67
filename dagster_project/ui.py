"""`make ui`: the Dagster page on the workspace, and the router beside it, until Ctrl-C."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType

from rich.console import Console

from dagster_project.instance import use_our_home
from pipelines.shared_router import running, serving
from qis_connectors.errors import QisError

PROJECT = Path(__file__).parent.parent
USUAL_PORT = 3000
READY_SECONDS = 120
STOP_SECONDS = 10
GRACE_SECONDS = 1


class PageError(QisError):
    """The page cannot be shown."""


def serve(root: Path, port: int | None, notices: Console) -> None:
    """Page and router until KeyboardInterrupt; nothing of them is left then."""
    address = f"127.0.0.1:{_free(port)}"
    with ExitStack() as stack:
        has_router = _take_router(root, stack)
        page = stack.enter_context(_page(root, address))
        with notices.status("starting the Dagster page ..."):
            _wait_until_ready(page, address)
        notices.print(f"Dagster page on {root}: http://{address} (Ctrl-C stops it)")
        while page.poll() is None:
            # `make demo` had the store when this began; the router is ours as soon as it has finished.
            has_router = has_router or _take_router(root, stack)
            time.sleep(0.5)
        raise _ended()


def _take_router(root: Path, stack: ExitStack) -> bool:
    """Whether the page's steps find a router by itself: one that was named, or ours. False: another process' one."""
    if os.environ.get("QIS_ROUTER"):
        return True
    try:
        stack.enter_context(serving(root))
    except QisError:
        if running(root) is None:
            raise
        return False
    return True


@contextmanager
def _page(root: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Webserver, daemon and code server, as one process group: the code server outlives the command that starts it."""
    host, _, port = address.partition(":")
    with _log().open("wb") as log:
        page = subprocess.Popen(
            [Path(sys.executable).with_name("dg"), "dev", "--host", host, "--port", port],
            cwd=PROJECT,
            env={**os.environ, "QIS_OUT": str(root.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield page
        finally:
            _stop(page)


def _stop(page: subprocess.Popen[bytes]) -> None:
    page.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        page.wait(STOP_SECONDS)
    # What is left: code servers, and runs, which note that they were interrupted.
    with suppress(ProcessLookupError):
        os.killpg(page.pid, signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.killpg(page.pid, signal.SIGKILL)
    page.wait()


def _wait_until_ready(page: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(address):
        if page.poll() is not None or time.monotonic() > deadline:
            raise _ended()
        time.sleep(0.1)


def _answers(address: str) -> bool:
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free(port: int | None) -> int:
    """The port asked for, or the usual one, or any where that is taken."""
    for wanted in [port] if port else [USUAL_PORT, 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            return int(probe.getsockname()[1])
    raise PageError(f"port {port} is in use")


def _ended() -> PageError:
    return PageError(f"the Dagster page has ended; {_log()} says why")


def _log() -> Path:
    return use_our_home() / "page.log"


def _interrupt(*_: int | FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(prog="make ui", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("qis-demo"), help="the folder that keeps everything")
    parser.add_argument("--port", type=int, help=f"the page's port; {USUAL_PORT}, or any free one where it is taken")
    given = parser.parse_args()
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    # The page is a process group of its own, so nobody but us tells it that the terminal is gone.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        serve(given.out, given.port, notices)
    except QisError as error:
        notices.print(f"ui: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        notices.print("stopped")


if __name__ == "__main__":
    main()
