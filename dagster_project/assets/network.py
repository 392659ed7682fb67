"""What is made of the packets of all sites: the table, an answer for each file of sql/, the report."""

import dagster as dg

from dagster_project.assets.sites import STUDY, deposited_packets
from dagster_project.metadata import answer_table, picture, sql_description
from dagster_project.resources import Workspace
from pipelines import demo
from pipelines.synthesize import answers, statements

GROUP = f"{STUDY}_network"


@dg.asset(key_prefix=STUDY, group_name=GROUP, deps=[deposited_packets], kinds={"deltalake"})
def packet_table(workspace: Workspace) -> dg.MaterializeResult[None]:
    """The packets of all sites, pulled from the router by address into a Delta table, each packet once."""
    with workspace.loop_with_router() as loop:
        found = demo.packet_table(loop)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.total,
            "new packets": found.new,
            "table version": found.version,
            "table": dg.MetadataValue.path(loop.table.resolve()),
        }
    )


def _answer(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        key_prefix=STUDY,
        group_name=GROUP,
        deps=[packet_table],
        description=sql_description(statements()[name]),
        kinds={"sql", "duckdb"},
    )
    def run(workspace: Workspace) -> dg.MaterializeResult[None]:
        with workspace.loop() as loop:
            rows = demo.answer(loop, name)
        return dg.MaterializeResult(metadata={"answer": answer_table(rows), "dagster/row_count": rows.num_rows})

    return run


sql_answers = [_answer(name) for name in sorted(answers())]


@dg.asset(key_prefix=STUDY, group_name=GROUP, deps=sql_answers, kinds={"html"})
def report(workspace: Workspace) -> dg.MaterializeResult[None]:
    """The answers on one page that opens offline, with the forest plot: each site's effect and the pooled ones."""
    with workspace.loop() as loop:
        page = demo.report(loop).resolve()
    return dg.MaterializeResult(
        metadata={
            "forest plot": picture(page.with_name("forest.svg")),
            "report": dg.MetadataValue.path(page),
        }
    )
