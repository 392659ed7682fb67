"""What the assets are given: the workspace, its router and its engine."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import dagster as dg

from dagster_project.router import router_at
from pipelines.demo import Loop


class Workspace(dg.ConfigurableResource["Workspace"]):
    """The folder that keeps everything, the router that its sites know, and the engine they count with."""

    root: str
    router: str = ""
    """Empty: the router that runs over the workspace's own store, or one that is started for the step."""
    engine: Literal["auto", "polars", "spark"] = "auto"

    def loop(self) -> Loop:
        """For the steps that stay at a site."""
        return Loop(Path(self.root), self.router, self.engine)

    @contextmanager
    def loop_with_router(self) -> Iterator[Loop]:
        with nullcontext(self.router) if self.router else router_at(Path(self.root)) as url:
            yield Loop(Path(self.root), url, self.engine)
