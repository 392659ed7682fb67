"""All that the Dagster page knows: for each study its assets, checks and jobs, and what runs them by itself."""

import os
from pathlib import Path

import dagster as dg

from dagster_project.assets.network import network_assets, network_group
from dagster_project.assets.sites import site_assets, site_group
from dagster_project.automation import (
    ONE_WRITER,
    monthly_distill,
    new_packets,
    nightly_synthesis,
    nightly_upkeep,
    upkeep,
)
from dagster_project.checks.network import network_checks
from dagster_project.checks.sites import site_checks
from dagster_project.resources import Workspace
from pipelines.sources import Source, sources

ROOT = os.environ.get("QIS_OUT", "qis-demo")


def site_job(source: Source) -> str:
    return f"{source.name}_site"


def network_job(source: Source) -> str:
    return f"{source.name}_network"


def study_definitions(source: Source) -> dg.Definitions:
    """A study, as its file says it: adding a file adds these."""
    return dg.Definitions(
        assets=[*site_assets(source), *network_assets(source)],
        asset_checks=[site_checks(source), *network_checks(source)],
        jobs=[
            dg.define_asset_job(
                site_job(source),
                selection=dg.AssetSelection.groups(site_group(source)),
                description="One site: its rows, its packets, the checks on them, their deposit.",
            ),
            dg.define_asset_job(
                network_job(source),
                selection=dg.AssetSelection.groups(network_group(source)),
                description="What all sites have deposited: the table, the answers, the report.",
                tags=ONE_WRITER,
            ),
        ],
        schedules=[monthly_distill(source, site_job(source)), nightly_synthesis(source, network_job(source))],
        sensors=[new_packets(source, network_job(source))],
    )


defs = dg.Definitions.merge(
    *map(study_definitions, sources(Path(ROOT))),
    dg.Definitions(
        jobs=[upkeep],
        schedules=[nightly_upkeep],
        resources={
            "workspace": Workspace(
                root=ROOT,
                router=os.environ.get("QIS_ROUTER", ""),
                engine=os.environ.get("QIS_ENGINE", "auto"),  # type: ignore[arg-type]  # the resource checks it
                spark_submit=os.environ.get("QIS_SPARK_SUBMIT", ""),
            )
        },
        executor=dg.in_process_executor,
    ),
)
