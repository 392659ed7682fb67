"""A site's packets staged on a cluster: what `spark-submit` runs for the asset staged_packets, told over Pipes."""

from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from pipelines import demo
from pipelines.sources import home, sources
from qis_connectors.errors import QisError

Told = dict[str, Any]
"""Metadata of the asset, or the one line `failure` that says why there are no packets."""


def stage(pipes: PipesContext) -> Told:
    root, name, site, month = (pipes.get_extra(key) for key in ("root", "study", "site", "month"))
    try:
        (source,) = (one for one in sources(Path(root)) if one.name == name)
        release = demo.staged_packets(demo.Loop(home(Path(root), name), "", "spark", source), site, month)
    except QisError as error:
        return {"failure": str(error)}
    return release.told()


if __name__ == "__main__":
    with open_dagster_pipes() as pipes:
        pipes.report_custom_message(stage(pipes))
