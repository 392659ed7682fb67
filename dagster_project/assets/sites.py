"""What is done at each site: its rows, its packets, their deposit. A partition is a site, or a site's month."""

import dagster as dg

from dagster_project.partitions import parts_of, site_and_month
from dagster_project.resources import RETRIES, Workspace
from dagster_project.submit import submitted
from pipelines import demo
from pipelines.sources import Source


def site_group(source: Source) -> str:
    return f"{source.name}_sites"


def site_assets(source: Source) -> list[dg.AssetsDefinition]:
    """Rows, staged packets and deposited packets of a study."""
    return [_site_rows(source), _staged_packets(source), _deposited_packets(source)]


def _site_rows(source: Source) -> dg.AssetsDefinition:
    @dg.asset(key_prefix=source.name, group_name=site_group(source), partitions_def=parts_of(source), kinds={"parquet"})
    def site_rows(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
        """The rows of one site, where the study file says; they never leave it. Shown is how many there are."""
        with workspace.loop(source) as loop:
            rows = demo.site_rows(loop, *site_and_month(context))
        return dg.MaterializeResult(metadata={"rows kept at the site": rows})

    return site_rows


def _staged_packets(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=site_group(source),
        partitions_def=parts_of(source),
        deps=[[source.name, "site_rows"]],
        kinds={"arrow"},
    )
    def staged_packets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
        """What the site would send: its rows distilled to outcome packets of at most 512 bytes, still at the site.

        The study's gate withholds a packet that stands on too few people; the reason is then in the metadata. The
        checks come next, and a packet that one of them stops is not deposited.
        """
        site, month = site_and_month(context)
        with workspace.loop(source) as loop:
            if workspace.spark_submit and loop.engine_of(loop.rows(site, month)) == "spark":
                told = submitted(context, workspace, source, site, month)
            else:
                told = demo.staged_packets(loop, site, month).told()
        if "withheld" in told:
            context.log.warning("%s keeps back: %s", site, told["withheld"])
        return dg.MaterializeResult(metadata=told)

    return staged_packets


def _deposited_packets(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=site_group(source),
        partitions_def=parts_of(source),
        deps=[[source.name, "staged_packets"]],
        kinds={"arrow"},
        retry_policy=RETRIES,
    )
    def deposited_packets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
        """The site's packets at the router, acknowledged: they are on its disk, once, however often they are sent."""
        with workspace.loop_with_router(source, context.retry_number) as loop:
            receipt = demo.deposited_packets(loop, *site_and_month(context))
        return dg.MaterializeResult(
            metadata={
                "stored": receipt.stored,
                "there already": receipt.duplicates,
                "router's cursor": receipt.cursor,
                "router": loop.router,
            }
        )

    return deposited_packets
