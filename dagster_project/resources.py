"""What the assets are given: the workspace, its router and its engine."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import dagster as dg

from pipelines.demo import Loop
from pipelines.shared_router import router_at
from qis_connectors.errors import QisError


class Workspace(dg.ConfigurableResource["Workspace"]):
    """The folder that keeps everything, the router that its sites know, and the engine they count with.

    Out of both methods' blocks a QisError comes as dg.Failure: the page then shows its line before any traceback.
    """

    root: str
    router: str = ""
    """Empty: the router that runs on the workspace's own store, or one that is started for the step."""
    engine: Literal["auto", "polars", "spark"] = "auto"

    @contextmanager
    def loop(self) -> Iterator[Loop]:
        """For the steps that need no router."""
        with _failures():
            yield Loop(Path(self.root), self.router, self.engine)

    @contextmanager
    def loop_with_router(self) -> Iterator[Loop]:
        """For the steps that send or pull packets."""
        with _failures(), nullcontext(self.router) if self.router else router_at(Path(self.root)) as url:
            yield Loop(Path(self.root), url, self.engine)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except QisError as error:
        # Pydantic's error behind it would keep frames alive unseen by the garbage collector: DuckDB complains at exit.
        error.__context__ = None
        raise dg.Failure(str(error)) from None
