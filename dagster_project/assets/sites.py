"""What is done at each site: its rows, its packets, their deposit. A partition is a site."""

import dagster as dg

from dagster_project.resources import Workspace
from pipelines import bcg, demo
from qis_connectors.packet import wire_bytes

STUDY = "bcg"
SITES = dg.StaticPartitionsDefinition(list(bcg.trials()))
GROUP = f"{STUDY}_sites"


@dg.asset(key_prefix=STUDY, group_name=GROUP, partitions_def=SITES, kinds={"parquet"})
def site_rows(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
    """The participants of one trial, one row each, rebuilt from its published counts. They never leave the site.

    Columns: vaccinated, tuberculosis, and the site's latitude, allocation and year.
    """
    with workspace.loop() as loop:
        rows = demo.site_rows(loop, context.partition_key)
    return dg.MaterializeResult(metadata={"rows kept at the site": rows})


@dg.asset(key_prefix=STUDY, group_name=GROUP, partitions_def=SITES, deps=[site_rows], kinds={"arrow"})
def staged_packets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
    """What the site would send: its rows distilled to outcome packets of at most 512 bytes, still at the site.

    The study's gate withholds a packet that stands on too few people; the reason is then in the metadata.
    """
    with workspace.loop() as loop:
        release = demo.staged_packets(loop, context.partition_key)
    if release.withheld:
        context.log.warning("%s sends nothing: %s", release.site, release.withheld)
    metadata: dict[str, dg.MetadataValue | int | str] = {
        "packets": release.packets.num_rows,
        "bytes on the wire": round(sum(wire_bytes(release.packets.to_pydict()))),
        "rows counted": release.rows,
        "counted by": release.engine,
    }
    return dg.MaterializeResult(metadata=metadata | ({"withheld": release.withheld} if release.withheld else {}))


@dg.asset(key_prefix=STUDY, group_name=GROUP, partitions_def=SITES, deps=[staged_packets], kinds={"arrow"})
def deposited_packets(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
    """The site's packets at the router, acknowledged: they are on its disk, once, however often they are sent."""
    with workspace.loop_with_router() as loop:
        receipt = demo.deposited_packets(loop, context.partition_key)
    return dg.MaterializeResult(
        metadata={
            "stored": receipt.stored,
            "there already": receipt.duplicates,
            "router's cursor": receipt.cursor,
            "router": loop.router,
        }
    )
