"""All that the Dagster page knows: the assets, the jobs that make them, the workspace they work in."""

import os

import dagster as dg

from dagster_project.assets import network, sites
from dagster_project.resources import Workspace

site_job = dg.define_asset_job(
    f"{sites.STUDY}_site",
    selection=dg.AssetSelection.groups(sites.GROUP),
    description="One site: its rows, its packets, their deposit.",
)
network_job = dg.define_asset_job(
    f"{sites.STUDY}_network",
    selection=dg.AssetSelection.groups(network.GROUP),
    description="What all sites have deposited: the table, the answers, the report.",
)

defs = dg.Definitions(
    assets=dg.load_assets_from_modules([sites, network]),
    jobs=[site_job, network_job],
    resources={
        "workspace": Workspace(
            root=os.environ.get("QIS_OUT", "qis-demo"),
            router=os.environ.get("QIS_ROUTER", ""),
            engine=os.environ.get("QIS_ENGINE", "auto"),  # type: ignore[arg-type]  # the resource checks it
        )
    },
    executor=dg.in_process_executor,
)
