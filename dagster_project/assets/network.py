"""What is made of the packets of all sites: the table, an answer for each file of sql/, the months, the report."""

from collections.abc import Iterable

import dagster as dg
import pyarrow.compute as pc

from dagster_project.metadata import answer_table, picture, sql_description
from dagster_project.resources import RETRIES, Workspace
from pipelines import demo
from pipelines.accumulate import traffic
from pipelines.monthly import METHOD
from pipelines.sources import Source
from pipelines.synthesize import answers, statements


def network_group(source: Source) -> str:
    return f"{source.name}_network"


def network_assets(source: Source) -> list[dg.AssetsDefinition]:
    """The packet table of a study and what is made of it."""
    names = sorted(answers())
    made = [_packet_table(source), *(_answer(source, name) for name in names)]
    months = [_monthly(source)] if source.months else []
    return [*made, *months, _elections(source), _report(source, [*names, "elections"])]


def _packet_table(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=network_group(source),
        deps=[[source.name, "deposited_packets"]],
        kinds={"deltalake"},
        retry_policy=RETRIES,
    )
    def packet_table(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[None]:
        """The packets of all sites, pulled from the router by address into a Delta table, each packet once."""
        with workspace.loop_with_router(source, context.retry_number) as loop:
            found = demo.packet_table(loop)
            records, sent = traffic(loop.table)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": found.total,
                "new packets": found.new,
                "records kept at home": records,
                "bytes sent": sent,
                "bytes a packet": round(sent / max(found.total, 1), 1),
                "table version": found.version,
                "table": dg.MetadataValue.path(loop.table.resolve()),
            }
        )

    return packet_table


def _answer(source: Source, name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        key_prefix=source.name,
        group_name=network_group(source),
        deps=[[source.name, "packet_table"]],
        description=sql_description(statements()[name]),
        kinds={"sql", "duckdb"},
    )
    def run(workspace: Workspace) -> dg.MaterializeResult[None]:
        with workspace.loop(source) as loop:
            rows = demo.answer(loop, name)
        return dg.MaterializeResult(metadata={"answer": answer_table(rows), "dagster/row_count": rows.num_rows})

    return run


def _monthly(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=network_group(source),
        deps=[[source.name, "packet_table"]],
        kinds={"sql", "duckdb"},
    )
    def monthly(workspace: Workspace) -> dg.MaterializeResult[None]:
        """The pooled answer of each month by itself, and whether the months differ by more than chance: drift.

        sql/subgroups.sql, with the month for the subgroup.
        """
        with workspace.loop(source) as loop:
            rows = demo.monthly(loop)
        shown = rows.filter(pc.equal(rows["method"], METHOD)).drop_columns(["variable", "method"])
        return dg.MaterializeResult(
            metadata={
                "drift": picture(loop.root / "drift.svg"),
                "answer": answer_table(shown),
                "dagster/row_count": rows.num_rows,
            }
        )

    return monthly


def _elections(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=network_group(source),
        deps=[[source.name, "packet_table"]],
        kinds={"sql", "duckdb", "deltalake"},
    )
    def elections(workspace: Workspace) -> dg.MaterializeResult[None]:
        """Whose packets foretell whose: networks forecast each packet from what came before it, and the best may lead.

        sql/elections; the forecasts are appended to a table beside the packets, where nobody can change them later.
        """
        with workspace.loop(source) as loop:
            rows = demo.elections(loop)
        return dg.MaterializeResult(metadata={"answer": answer_table(rows), "dagster/row_count": rows.num_rows})

    return elections


def _report(source: Source, names: Iterable[str]) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        group_name=network_group(source),
        deps=[[source.name, name] for name in names],
        kinds={"html"},
    )
    def report(workspace: Workspace) -> dg.MaterializeResult[None]:
        """The answers on one page that opens offline, with the forest plot: each site's effect and the pooled ones."""
        with workspace.loop(source) as loop:
            page = demo.report(loop).resolve()
        return dg.MaterializeResult(
            metadata={
                "forest plot": picture(page.with_name("forest.svg")),
                "report": dg.MetadataValue.path(page),
            }
        )

    return report
