"""A step of the pipeline that runs on a cluster: submitted by spark-submit, heard of by Dagster Pipes."""

import os
import shlex
import sys
from pathlib import Path

import dagster as dg

from dagster_project import spark_job
from dagster_project.resources import Workspace
from dagster_project.spark_job import Told
from pipelines.sources import Source
from qis_connectors.errors import QisError


class SubmitError(QisError):
    """The command that submits could not be run, or the site has no packets to send for a mistake in its study."""


def submitted(context: dg.AssetExecutionContext, workspace: Workspace, source: Source, site: str, month: str) -> Told:
    """The metadata of a site's packets, which the cluster stages where the workspace is.

    SubmitError, in one line, where there is no such command or the study is wrong; where the command fails otherwise
    Dagster says so, and what it printed is in the run's stderr.
    """
    where = {"root": str(Path(workspace.root).resolve()), "study": source.name, "site": site, "month": month}
    try:
        done = dg.PipesSubprocessClient().run(
            context=context,
            command=[*shlex.split(workspace.spark_submit), str(Path(spark_job.__file__))],
            extras=where,
            env={"PYSPARK_PYTHON": os.environ.get("PYSPARK_PYTHON", sys.executable)},
        )
    except OSError as error:
        raise SubmitError(f"spark_submit {workspace.spark_submit!r}: {error.strerror}") from None
    (told,) = done.get_custom_messages()
    if "failure" in told:
        raise SubmitError(told["failure"])
    return dict(told)
