"""The checks on what has come together: the table against what was sent, the pooled answer against the robust."""

from collections.abc import Callable

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_project.checks.sites import check_result
from dagster_project.resources import Workspace
from pipelines.demo import Loop
from pipelines.forest import rows_of
from pipelines.inspection import Finding, arrived, each_once, fresh
from pipelines.sources import Source

WARN = dg.AssetCheckSeverity.WARN


def network_checks(source: Source) -> list[dg.AssetChecksDefinition]:
    return [
        _table_check(source, "each_packet_once", dg.AssetCheckSeverity.ERROR, lambda loop: each_once(loop.table)),
        _table_check(source, "all_that_was_sent", WARN, lambda loop: arrived(loop.table, _staged(loop))),
        _table_check(
            source, "fresh", WARN, lambda loop: fresh(loop.table, loop.router, loop.problem()[0], loop.identity)
        ),
        _disagreement(source),
    ]


_DESCRIPTIONS = {
    "each_packet_once": "The table has no packet twice.",
    "all_that_was_sent": "The table has every packet that a site has staged: those not deposited yet are missing.",
    "fresh": "The table has every packet that the router has.",
}


def _table_check(
    source: Source, name: str, severity: dg.AssetCheckSeverity, look: Callable[[Loop], list[Finding]]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(name=name, asset=[source.name, "packet_table"], description=_DESCRIPTIONS[name])
    def run(workspace: Workspace) -> dg.AssetCheckResult:
        with workspace.loop_with_router(source) as loop:
            return check_result(look(loop), severity)

    return run


def _disagreement(source: Source) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=[source.name, "pooled"], additional_deps=[[source.name, "disagreement"]])
    def robust_agrees(workspace: Workspace) -> dg.AssetCheckResult:
        """The robust answers and the pooled one lie within three standard errors, or a few packets carry the latter."""
        with workspace.loop(source) as loop:
            twins = rows_of(pq.read_table(loop.answer("disagreement")), loop.problem()).to_pylist()
        found = [Finding(f"REML parts from {twin['twin']}", 1, int(twin["disagrees"])) for twin in twins]
        return check_result(found, WARN)

    return robust_agrees


def _staged(loop: Loop) -> pa.ChunkedArray:
    """packet_id of all that the sites have staged; of packets that were staged anew, the newest."""
    source = loop.source
    paths = (loop.staged(site, month) for site in source.sites for month in source.months or ("",))
    tables = [pq.read_table(path, columns=["packet_id"]) for path in paths if path.exists()]
    return pa.concat_tables(tables)["packet_id"] if tables else pa.chunked_array([], pa.string())
