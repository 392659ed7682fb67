"""What is done at each site: its rows, its packets, their deposit. A partition is a site, or a site's month."""

import dagster as dg

from dagster_project.partitions import parts_of, site_and_month
from dagster_project.resources import RETRIES, Workspace
from pipelines import demo
from pipelines.sources import Source
from qis_connectors.packet import wire_bytes

Metadata = dict[str, dg.MetadataValue | int | str]


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
        with workspace.loop(source) as loop:
            release = demo.staged_packets(loop, *site_and_month(context))
        metadata: Metadata = {
            "packets": release.packets.num_rows,
            "bytes on the wire": round(sum(wire_bytes(release.packets.to_pydict()))),
            "rows counted": release.rows,
            "counted by": release.engine,
        }
        if release.withheld:
            context.log.warning("%s sends nothing: %s", release.site, release.withheld)
            metadata["withheld"] = release.withheld
        return dg.MaterializeResult(metadata=metadata)

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
