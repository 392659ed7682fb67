"""The commands over a packet table. As thin as cli.py."""

from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import typer

from pipelines.cli_router import Form, RouterUrl, Similarity
from pipelines.cli_site import IdentityFolder
from pipelines.output import Format, notice, print_rows
from qis_connectors.errors import QisError

Table = Annotated[Path, typer.Option("--table", help="The packet table, a Delta folder.")]
ELECTION_COLUMNS = (
    *("address", "design", "network", "forecasts", "in_advance", "score", "gain", "share", "evidence", "needed"),
    *("shuffled", "shuffled_evidence", "verdict"),
)


def accumulate(
    router: RouterUrl,
    table: Table,
    address: Annotated[str, typer.Option(help="Which packets: an address, a prefix or a glob.")] = "*",
    engine: Annotated[Literal["duckdb", "spark"], typer.Option(help="What finds the new ones and writes.")] = "duckdb",
    identity: IdentityFolder = None,
) -> None:
    """Append what a router has and the packet table has not, each packet once."""
    from pipelines.accumulate import accumulate as append_new

    done = append_new(router, table, address, engine, identity)
    notice(f"{done.new} new packets, {done.total} in {table} (version {done.version})")


def synthesize(
    table: Table,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Answers; all if none.")] = None,
    engine: Annotated[Literal["duckdb", "spark"], typer.Option(help="What runs the SQL.")] = "duckdb",
    as_of: Annotated[
        str | None, typer.Option(metavar="VERSION|TIME", help="Over what the table held then: 7, 2026-01-31T12:00.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the answers in this folder; compute only what new packets change.")
    ] = None,
    similarity: Similarity = None,
    form: Form = Format.table,
) -> None:
    """Run the SQL of sql/ on a packet table and print the answers."""
    from pipelines.answers import answers_from, moment
    from pipelines.kept import kept_answers
    from qis_connectors.similarity import Definitions

    definitions = None if similarity is None else Definitions.read(similarity)
    if keep and as_of is not None:
        raise QisError("--keep holds the newest answers; ask for an older one without it")
    if keep:
        answers = kept_answers(table, keep, names, engine, definitions)
    else:
        answers = answers_from(table, names, engine, None if as_of is None else moment(as_of), definitions)
    if form is Format.table:
        for name, rows in answers.items():
            notice(f"\n{name}")
            print_rows(rows, form)
    elif len(answers) == 1:
        print_rows(next(iter(answers.values())), form)
    else:
        # One array, one table: each row says which answer it belongs to.
        named = [rows.add_column(0, "answer", [[name] * rows.num_rows]) for name, rows in answers.items()]
        print_rows(pa.concat_tables(named, promote_options="default"), form)


def elect(
    table: Table,
    networks: Annotated[
        Path | None,
        typer.Option(help="The candidates: a folder of similarity definitions, else those that are shipped."),
    ] = None,
    form: Form = Format.table,
) -> None:
    """Let networks forecast each packet from what came before it, and say which of them has earned the say."""
    from pipelines.elections.record import elect as hold_election

    rows = hold_election(table, networks)["election"]
    print_rows(rows, form, ELECTION_COLUMNS)
    if not rows.num_rows:
        notice("no network but everyone is for these packets; --networks names a folder of similarity definitions")


def report(
    table: Table,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option(help="Write each plot to this folder too, as SVG and as PNG.")] = None,
) -> None:
    """Write the report on a packet table: one HTML file that opens offline."""
    from pipelines.answers import report_from

    notice(f"written: {report_from(table, out, plots)}")
