"""The commands of a site: write and check a study, distill. As thin as cli.py, which they are part of."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
import typer
from rich.progress import Progress

from pipelines.output import Format, notice, notices, print_rows, say_receipt
from qis_connectors.errors import QisError

if TYPE_CHECKING:
    from pipelines.distill import Release

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="What counts the rows: polars, duckdb, spark or a Spark master's URL.")
]
Form = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
IdentityFolder = Annotated[
    Path | None,
    typer.Option("--identity", metavar="DIR", help="Your bundle, for grpc+tls:// routers; or QIS_IDENTITY names it."),
]
SENT_COLUMNS = ("node_id", "metric_name", "metric_delta", "metric_stderr", "sample_count", "intervention_type")
study_app = typer.Typer(help="Write a study file, or see what one would send.", no_args_is_help=True)


@study_app.command()
def new(
    table: Annotated[Path, typer.Argument(help="Rows as .parquet, .csv or a Delta folder.")],
    out: Annotated[Path | None, typer.Option(help="Write it there, if nothing is there yet.")] = None,
) -> None:
    """Write a commented study file from a table's columns."""
    from pipelines.study_draft import draft

    text = draft(table)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise QisError(f"{out}: is there already") from None


@study_app.command()
def check(study: StudyFile, engine: EngineName = "polars", form: Form = Format.table) -> None:
    """Say what a study would send, packet by packet. Nothing leaves."""
    from pipelines.study import load_any
    from qis_connectors import address

    plan = load_any(study)
    notice(f"{plan.study}: packets to {address.of(plan.domain, plan.problem_type)}")
    _list(_releases(study, engine), form)


def distill(
    study: StudyFile,
    engine: EngineName = "polars",
    out: Annotated[Path | None, typer.Option(help="Write the packets to this Parquet file.")] = None,
    router: Annotated[
        str | None, typer.Option(help="Deposit the packets there: grpc://HOST:PORT or grpc+tls://HOST:PORT.")
    ] = None,
    identity: IdentityFolder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List each packet, its bytes and what the linter found. Nothing leaves.")
    ] = False,
    form: Form = Format.table,
) -> None:
    """Turn the rows of each site of a study into packets, and print them, write them or deposit them."""
    from pipelines import ledger
    from pipelines.distill import signed
    from pipelines.files import write_parquet
    from pipelines.study import load_any
    from qis_connectors.client import RouterClient

    found = _releases(study, engine)
    if dry_run:
        _list(found, form)
        return
    packets = pa.concat_tables(release.packets for _, release in found)
    if out or router:
        # Before, not after: what may have left counts as left.
        for rows, release in found:
            ledger.record(rows, release.entries)
        packets = signed(load_any(study), study.parent, packets)
    if out:
        write_parquet(packets, out)
    if router:
        with RouterClient(router, identity) as client:
            say_receipt(client.deposit(packets))
    if not (out or router):
        print_rows(packets, form, SENT_COLUMNS)


def _releases(study: Path, engine: str) -> "list[tuple[Path, Release]]":
    from pipelines.distill import releases
    from pipelines.engine import engine_named
    from pipelines.study import load_any

    plan, name = load_any(study), engine_named(engine)
    with Progress(console=notices, transient=True, disable=not notices.is_terminal) as progress:
        found = list(progress.track(releases(plan, study.parent, name), description="Sites"))
    for _, release in found:
        if release.withheld and not release.packets.num_rows:
            notice(f"{release.site}: no packet leaves: {release.withheld}")
        elif release.withheld:
            notice(f"{release.site}: {len(release.kept_back)} packets stay: {release.withheld}")
    return found


def _list(found: "list[tuple[Path, Release]]", form: Format) -> None:
    from qis_connectors.packet import wire_bytes

    listed = []
    for _, release in found:
        sizes = wire_bytes(release.packets.to_pydict())
        for row, size, finding in zip(release.packets.to_pylist(), sizes, release.findings, strict=True):
            listed.append({name: row[name] for name in LISTED} | {"bytes": round(size), "linter": str(finding or "-")})
    kinds = [*((name, release.packets.schema.field(name).type) for name in LISTED), ("bytes", pa.int64())]
    rows = pa.Table.from_pylist(listed, schema=pa.schema([*kinds, ("linter", pa.string())]))
    print_rows(rows, form)


LISTED = ("node_id", "training_phase", "context", "metric_name", "metric_delta", "metric_stderr", "sample_count")
