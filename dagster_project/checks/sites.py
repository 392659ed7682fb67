"""The checks between a site's staged packets and their deposit: what one of them stops does not leave."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_project.checks.expectations import meet_expectations
from dagster_project.metadata import findings_table
from dagster_project.partitions import split
from dagster_project.resources import Workspace
from pipelines.inspection import Finding, gate, leaks, sizes
from pipelines.sources import Source
from pipelines.study import Study

Look = Callable[[Study, str, Path, pa.Table], list[Finding]]
"""From a study, a site, its rows and its packets to what is found."""

LOOKS: dict[str, tuple[str, Look]] = {
    "schema_and_ranges": (
        "Schema and ranges of the packets, by Great Expectations.",
        lambda study, site, _, packets: meet_expectations(packets, study, site),
    ),
    "gate_honoured": (
        "No packet stands on a cell that the study's gate withholds; counted again from the rows.",
        lambda study, _, rows, packets: gate(study, rows, packets),
    ),
    "no_raw_column": (
        "No column that stays at the site is in a packet, by its name or by one of its values.",
        lambda study, site, rows, packets: leaks(study, site, rows, packets),
    ),
    "size": ("No packet is larger than the wire's limit.", lambda *given: sizes(given[-1])),
}


def site_checks(source: Source) -> dg.AssetChecksDefinition:
    """What is looked at in staged packets; each look blocks the deposit, and tells counts only.

    All are one step: a step of a run costs more than what is looked at here.
    """
    asset = dg.AssetKey([source.name, "staged_packets"])

    @dg.multi_asset_check(
        name=f"{source.name}_packets_looked_at",
        specs=[
            dg.AssetCheckSpec(name, asset=asset, blocking=True, description=f"{description} Counts only.")
            for name, (description, _) in LOOKS.items()
        ],
    )
    def run(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> Iterator[dg.AssetCheckResult]:
        with workspace.loop(source) as loop:
            study = loop.study()
            given = [
                (study.of(month), site, loop.rows(site, month), pq.read_table(loop.staged(site, month)))
                for site, month in _parts(context, source)
                if loop.staged(site, month).exists()
            ]
            for name, (_, look) in LOOKS.items():
                found = [finding for one in given for finding in look(*one)]
                yield check_result(found)._replace(check_name=name, asset_key=asset)

    return run


def _parts(context: dg.AssetCheckExecutionContext, source: Source) -> Iterator[tuple[str, str]]:
    """The partition of the run; all of them where a check is run by itself."""
    if context.op_execution_context.has_partition_key:
        yield split(context.op_execution_context.partition_key)
    else:
        yield from ((site, month) for site in source.sites for month in source.months or ("",))


def check_result(
    found: list[Finding], severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """Passed where nothing is wrong; the metadata is the table of what was looked for."""
    return dg.AssetCheckResult(
        passed=not any(finding.wrong for finding in found),
        severity=severity,
        metadata={"looked for": findings_table(found), "wrong": sum(finding.wrong for finding in found)},
    )
