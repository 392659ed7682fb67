"""What the assets are given: the workspace, its router and its engine."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import dagster as dg

from pipelines.demo import Loop
from pipelines.shared_router import router_at, running
from pipelines.sources import Source, home
from qis_connectors.connection import UnreachableError
from qis_connectors.errors import QisError

RETRIES = dg.RetryPolicy(max_retries=3, delay=0.5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For what needs the router: half a second, then twice as long each time."""


class Workspace(dg.ConfigurableResource["Workspace"]):
    """The folder that keeps everything, the router that its sites know, and the engine they count with.

    Out of both methods' blocks a QisError comes as dg.Failure: the page then shows its line before any traceback.
    """

    root: str
    router: str = ""
    """Empty: the router that runs on the workspace's own store, or one that is started for the step."""
    engine: Literal["auto", "polars", "spark"] = "auto"
    spark_submit: str = ""
    """The command that submits to a cluster which sees the workspace, such as `spark-submit --master spark://HOST:7077`:
    what Spark is to count is counted there, by Dagster Pipes. Empty: Spark runs in the run's own process."""
    identity: str = ""
    """The folder of the bundle to be known by at a network's router; empty: the one that QIS_IDENTITY names."""

    @contextmanager
    def loop(self, source: Source) -> Iterator[Loop]:
        """For the steps that need no router."""
        with _failures(RETRIES.max_retries):
            yield Loop(home(Path(self.root), source.name), self.router, self.engine, source, self.identity or None)

    @contextmanager
    def loop_with_router(self, source: Source, retry_number: int = RETRIES.max_retries) -> Iterator[Loop]:
        """For the steps that send or pull packets; `retry_number`: how often this one was begun again."""
        with _failures(retry_number), nullcontext(self.router) if self.router else router_at(Path(self.root)) as url:
            yield Loop(home(Path(self.root), source.name), url, self.engine, source, self.identity or None)

    def running_router(self) -> str | None:
        """The URL of the router that sites know, if it runs; none is started."""
        return self.router or running(Path(self.root))


@contextmanager
def _failures(retry_number: int) -> Iterator[None]:
    try:
        yield
    except QisError as error:
        # Pydantic's error behind it would keep frames alive unseen by the garbage collector: DuckDB complains at exit.
        error.__context__ = None
        # Only a router that is away comes back by itself; of the last try the page shows the line.
        again = isinstance(error, UnreachableError) and retry_number < RETRIES.max_retries
        raise dg.Failure(str(error), allow_retries=again) from None
