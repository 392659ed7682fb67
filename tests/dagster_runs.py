"""Runs of the page's own jobs, in this process."""

import dagster as dg

from dagster_project import demo
from dagster_project.definitions import defs, network_job, site_job
from pipelines.sources import BCG


def execute(
    instance, root, partition=None, *, source=BCG, definitions=defs, run_id=None, only=(), checks=(), **settings
):
    """One run of a site's job, or of all sites' where there is no partition; a step that fails ends it quietly."""
    job = definitions.resolve_job_def((site_job if partition else network_job)(source))
    keys = {dg.AssetKey([source.name, name]) for name in only}
    looks = {dg.AssetCheckKey(dg.AssetKey([source.name, asset]), name) for asset, name in checks}
    if keys or looks:
        looks |= {key for key in job.asset_layer.asset_graph.asset_check_keys if key.asset_key in keys}
        job = job.get_subset(asset_selection=keys, asset_check_selection=looks)
    config = {"resources": {"workspace": {"config": {"root": str(root), "engine": "polars", **settings}}}}
    return job.execute_in_process(
        {**demo.QUIET, **config},
        instance,
        partition,
        run_id=run_id,
        raise_on_error=False,
    )


def made(result):
    """Asset name -> its metadata, of what a run has materialised."""
    return {
        event.materialization.asset_key.path[-1]: {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def checked(result):
    """Check name -> its evaluation, of what a run has checked."""
    return {one.check_name: one for one in result.get_asset_check_evaluations()}
