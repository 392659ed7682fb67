"""The workspace's router: whoever needs it uses the one that runs, or runs it for as long as it is needed.

One process at a time holds a store. The one that does writes its URL into the workspace, so `make demo` beside
`make ui`, and every step that the page runs, find it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.files import replacing
from pipelines.shipped import shipped
from qis_connectors.client import RouterClient
from qis_connectors.errors import QisError
from qis_connectors.router import Router


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The URL of a router of our own on the workspace's store; QisError where another process holds the store."""
    note = _note(root)
    with Router(root / "router", "grpc://127.0.0.1:0", similarity=shipped("similarity")) as router:
        with replacing(note) as draft:
            draft.write_text(f"{router.url} {router.store}\n", encoding="utf-8")
        try:
            yield router.url
        finally:
            note.unlink(missing_ok=True)


@contextmanager
def router_at(root: Path) -> Iterator[str]:
    """The URL of the router on the workspace's store: the one that runs, or else one for this block."""
    url = running(root)
    if url is not None:
        yield url
    else:
        with serving(root) as url:
            yield url


def running(root: Path) -> str | None:
    """The URL of the router that serves the workspace's store now, if one does."""
    try:
        url, store = _note(root).read_text(encoding="utf-8").split()
        with RouterClient(url) as client:
            # A killed process leaves its note behind, and its port may be another router's by now.
            return url if client.store == store else None
    except (OSError, ValueError, QisError):
        return None


def _note(root: Path) -> Path:
    return root / "router.url"
