"""The `qis` command. It reads arguments, calls one function and prints; what the words mean is decided elsewhere."""

import json
import logging
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress

from pipelines.cli_site import distill, study_app
from pipelines.cli_trust import audit_app, key, quarantine, verify
from pipelines.output import Format, notice, notices, print_rows, say_receipt
from qis_connectors.errors import QisError

# Commands import what they run when they run, so that `qis --help` and shell loops do not wait for Polars and DuckDB.
Engine = Literal["polars", "spark"]
app = typer.Typer(
    help="Outcome packets instead of rows: raw rows stay at the site; only packets travel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(study_app, name="study")
app.add_typer(audit_app, name="audit")
for command in (distill, key, verify, quarantine):
    app.command()(command)

RouterUrl = Annotated[str, typer.Option("--router", help="The router, as grpc://HOST:PORT.")]
Table = Annotated[Path, typer.Option("--table", help="The packet table, a Delta folder.")]
Form = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
Filters = Annotated[
    str | None, typer.Option(metavar="JSON", help="""Only these, such as '["sample_count", ">=", 100]'.""")
]
QUERY_COLUMNS = ("node_id", "metric_name", "metric_delta", "metric_stderr", "sample_count", "intervention_type")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder that keeps everything the demo makes.")] = Path("qis-demo"),
    engine: Annotated[Literal["auto", "polars", "spark"], typer.Option(help="What counts a site's rows.")] = "auto",
) -> None:
    """The BCG loop, end to end: thirteen real trials become packets, travel and become the published answer."""
    from pipelines.demo import Loop, run
    from pipelines.demo_summary import print_summary
    from pipelines.shared_router import router_at

    with (
        router_at(out) as url,
        Progress(console=notices, transient=True, disable=not notices.is_terminal) as progress,
    ):
        task = progress.add_task("", total=1)
        loop = Loop(out, url, engine)
        run(loop, lambda step, behind: progress.update(task, description=step, completed=behind))
    print_summary(loop, Console(soft_wrap=True))


@app.command()
def router(
    listen: Annotated[str, typer.Option(help="Where to listen.")] = "grpc://127.0.0.1:8815",
    store: Annotated[Path, typer.Option(help="The folder that keeps the packets.")] = Path("qis-store"),
    metrics: Annotated[str | None, typer.Option(help="Prometheus metrics there: HOST:PORT, or PORT.")] = None,
    log: Annotated[Literal["text", "json"], typer.Option(help="How events are written to standard error.")] = "text",
    keep_days: Annotated[float | None, typer.Option(min=0, help="Let packets go so long after they came.")] = None,
    keep_bytes: Annotated[int | None, typer.Option(min=1, help="Keep this much of each address, the newest.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Take only what a site with a NODE.pub there has signed.")] = None,
    quotas: Annotated[Path | None, typer.Option(help="A YAML file: what each site may use.")] = None,
) -> None:
    """Run a router until Ctrl-C. A packet it has acknowledged is on disk."""
    from qis_connectors.router import Retention, Router, logs

    logs.configure(log)
    retention = Retention(keep_days, keep_bytes)
    with suppress(KeyboardInterrupt), Router(store, listen, metrics, retention, keys, quotas) as server:
        server.serve()


@app.command()
def backup(
    store: Annotated[Path, typer.Argument(help="The folder of a router's store.")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
) -> None:
    """Copy a store as it is at one moment; its router may go on serving. A router can be started on the copy."""
    from qis_connectors.router import backup as copy_store

    total = sum(path.stat().st_size for path in store.glob("*/*"))
    with Progress(console=notices, transient=True, disable=not notices.is_terminal) as progress:
        task = progress.add_task("Backup", total=total)
        size = copy_store(store, out, lambda copied: progress.advance(task, copied))
    notice(f"{out}: {size:,} bytes")


@app.command()
def deposit(
    file: Annotated[Path, typer.Argument(help="Packets as .parquet, .arrow or .csv.")],
    router: RouterUrl,
    key: Annotated[Path | None, typer.Option(help="Sign them with this NODE.key, or a folder of them.")] = None,
) -> None:
    """Send the packets of a file to a router. One bad packet and none of them is sent."""
    from pipelines.packet_file import read_packets
    from qis_connectors.client import RouterClient
    from qis_connectors.signing import sign

    packets = read_packets(file)
    if key:
        packets = sign(packets, key)
    with RouterClient(router) as client:
        say_receipt(client.deposit(packets))


@app.command()
def addresses(
    router: RouterUrl,
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", help="Which: an address, a prefix or a glob.")] = "*",
    form: Form = Format.table,
) -> None:
    """List the addresses of a router with what is stored at them."""
    from qis_connectors.client import RouterClient

    with RouterClient(router) as client:
        print_rows(client.addresses(pattern), form)


@app.command()
def query(
    address: Annotated[str, typer.Argument(help="An address, a prefix or a glob such as 'clinical.*'.")],
    router: RouterUrl,
    since: Annotated[int | None, typer.Option(help="Only what was stored after this cursor.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns: a,b,c.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many packets.")] = None,
    filters: Filters = None,
    form: Form = Format.table,
) -> None:
    """Print the packets at an address, and on standard error the cursor to go on from."""
    from qis_connectors.client import RouterClient

    wanted = [name.strip() for name in columns.split(",")] if columns is not None else None
    where = read_filters(filters)
    with RouterClient(router) as client:
        packets = client.read(address, since=since, columns=wanted, limit=limit, filters=where)
    print_rows(packets.table, form, None if wanted else QUERY_COLUMNS)
    notice(f"{packets.table.num_rows} packets; go on with --since {packets.cursor}")


@app.command()
def watch(
    address: Annotated[str, typer.Argument(help="An address, a prefix or a glob such as 'clinical.*'.")],
    router: RouterUrl,
    since: Annotated[int | None, typer.Option(help="Only what was stored after this cursor.")] = None,
    filters: Filters = None,
    form: Annotated[Format, typer.Option("--format", help="How rows are printed; json: one object a line.")] = (
        Format.table
    ),
) -> None:
    """Print the packets at an address, then those that arrive, until Ctrl-C. Comes back when the router does."""
    from pipelines.output import RowStream
    from qis_connectors.client import RouterClient

    logging.basicConfig(level=logging.INFO, format="qis: %(message)s")
    rows = RowStream(form, QUERY_COLUMNS)
    cursor, wanted = since or 0, read_filters(filters)
    with (
        suppress(KeyboardInterrupt),
        RouterClient(router) as client,
        closing(client.watch(address, since, filters=wanted)) as news,
    ):
        notice(f"watching {address}; Ctrl-C stops it")
        for packets in news:
            rows.print(packets.table)
            cursor = packets.cursor
    notice(f"go on with --since {cursor}")


@app.command()
def accumulate(
    router: RouterUrl,
    table: Table,
    address: Annotated[str, typer.Option(help="Which packets: an address, a prefix or a glob.")] = "*",
    engine: Annotated[Literal["duckdb", "spark"], typer.Option(help="What finds the new ones and writes.")] = "duckdb",
) -> None:
    """Append what a router has and the packet table has not, each packet once."""
    from pipelines.accumulate import accumulate as append_new

    done = append_new(router, table, address, engine)
    notice(f"{done.new} new packets, {done.total} in {table} (version {done.version})")


@app.command()
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
    form: Form = Format.table,
) -> None:
    """Run the SQL of sql/ on a packet table and print the answers."""
    from pipelines.answers import answers_from, moment
    from pipelines.kept import kept_answers

    if keep and as_of is not None:
        raise QisError("--keep holds the newest answers; ask for an older one without it")
    if keep:
        answers = kept_answers(table, keep, names, engine)
    else:
        answers = answers_from(table, names, engine, None if as_of is None else moment(as_of))
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


@app.command()
def report(
    table: Table,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option(help="Write each plot to this folder too, as SVG and as PNG.")] = None,
) -> None:
    """Write the report on a packet table: one HTML file that opens offline."""
    from pipelines.answers import report_from

    notice(f"written: {report_from(table, out, plots)}")


def read_filters(text: str | None) -> object:
    """What JSON says; whether it is a filter the router says."""
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise QisError(f"--filters is not JSON: {error.msg} at character {error.pos}") from None


def main() -> None:
    """The console script: a mistake of the user's is one line on standard error and exit status 1."""
    try:
        app()
    except QisError as error:
        notice(f"qis: {error}")
    except OSError as error:
        notice(f"qis: {error.filename}: {error.strerror}" if error.filename else f"qis: {error}")
    sys.exit(1)
