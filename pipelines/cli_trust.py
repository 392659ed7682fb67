"""The commands of who may be believed: keys, signatures, evidence, audits. As thin as cli.py."""

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from pipelines.cli_router import Form, RouterUrl
from pipelines.cli_site import IdentityFolder
from pipelines.output import Format, notice, print_rows
from qis_connectors.errors import QisError

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")]
Packets = Annotated[Path, typer.Argument(help="Packets as .parquet, .arrow or .csv.")]
EngineName = Annotated[
    str, typer.Option("--engine", help="What counts the rows: polars, duckdb, spark or a Spark master's URL.")
]


class _RowsByDefault(TyperGroup):
    """`qis audit STUDY PACKETS` is `qis audit rows STUDY PACKETS`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in (*self.commands, "--help"):
            args = ["rows", *args]
        return super().parse_args(ctx, args)


audit_app = typer.Typer(
    cls=_RowsByDefault,
    help="What an auditor asks: whether packets are of the rows at a site, and what a router has decided.",
    no_args_is_help=True,
)


def key(
    node_id: Annotated[str, typer.Argument(metavar="NODE", help="The node_id of the site.")],
    out: Annotated[Path, typer.Option(help="The folder for NODE.key and NODE.pub.")] = Path("keys"),
) -> None:
    """Make a site's key: NODE.key signs and stays at the site, NODE.pub is for everybody."""
    from qis_connectors.keys import make_key

    secret, public = make_key(node_id, out)
    notice(f"{secret}: keep it, and the .chain that comes beside it, at the site; give {public.name} to who checks")


def verify(
    source: Annotated[Path, typer.Argument(metavar="TABLE|FILE", help="A packet table, or packets in a file.")],
    keys: Annotated[Path, typer.Option(help="The folder of the sites' NODE.pub.")],
    form: Form = Format.table,
) -> None:
    """Check every signature and every node's chain; exit status 1 if one does not hold. Gaps are told."""
    from pipelines.verification import verify as verify_packets

    found = verify_packets(source, keys)
    print_rows(found.findings, form)
    told = f"{found.packets} packets of {found.nodes} nodes, {found.gaps} gaps"
    if found.failures:
        raise QisError(f"{source}: {found.failures} findings against {told}")
    notice(f"{told}: every signature and every chain holds")


def quarantine(
    router: RouterUrl,
    out: Annotated[Path | None, typer.Option(help="Write both packets of each to this Parquet file.")] = None,
    form: Form = Format.table,
    identity: IdentityFolder = None,
) -> None:
    """List the packets a router refused because their own node had signed others in their place."""
    from pipelines.files import write_parquet
    from pipelines.verification import evidence, evidence_rows
    from qis_connectors.client import RouterClient

    with RouterClient(router, identity) as client:
        entries = client.quarantine()
    if out:
        write_parquet(evidence(entries), out)
    print_rows(evidence_rows(entries), form)


@audit_app.command()
def rows(study: StudyFile, packets: Packets, engine: EngineName = "polars", form: Form = Format.table) -> None:
    """Check packets against the rows they were made of, at the site; exit status 1 if one does not hold."""
    from pipelines.audit import audit
    from pipelines.engine import engine_named
    from pipelines.packet_file import read_packets
    from pipelines.study import load_any

    found = audit(load_any(study), study.parent, read_packets(packets), engine_named(engine))
    print_rows(found, form)
    failed = found["holds"].to_pylist().count(False)
    if failed or not found.num_rows:
        raise QisError(f"{failed} of {found.num_rows} packets of this study are not of the rows that are here")


@audit_app.command(name="open")
def open_commitments(
    study: StudyFile,
    packets: Packets,
    out: Annotated[Path, typer.Option(help="The file to show the auditor; it must not be there yet.")],
    engine: EngineName = "polars",
) -> None:
    """Open packets' commitments for an auditor, at the site: the file shows the rows behind them, and the salt."""
    from pipelines.audit import write_opening
    from pipelines.engine import engine_named
    from pipelines.packet_file import read_packets
    from pipelines.study import load_any

    opened = write_opening(load_any(study), study.parent, read_packets(packets), engine_named(engine), out)
    if not opened:
        raise QisError(f"{packets}: no packet is of the rows that are here; nothing is opened")
    notice(f"{out}: {opened} commitments, with the rows behind them and the salt; for the auditor only")


@audit_app.command(name="check")
def check_opening(
    opening: Annotated[Path, typer.Argument(help="What `qis audit open` wrote.")],
    packets: Packets,
    form: Form = Format.table,
) -> None:
    """Check packets against an opening, anywhere; exit status 1 if one does not hold or none is opened."""
    from pipelines.audit import check
    from pipelines.packet_file import read_packets
    from qis_connectors.outgoing import complete

    found = check(opening, complete(read_packets(packets)))
    print_rows(found, form)
    held = found["holds"].to_pylist()
    other, unseen = held.count(False), held.count(None)
    if other or unseen == len(held):
        raise QisError(f"{other} of {len(held)} packets are not what was opened, {unseen} are not shown")


@audit_app.command(name="verify")
def verify_log(
    log: Annotated[Path, typer.Argument(help="A router's audit log: the audit folder of its store, or a file of it.")],
) -> None:
    """Check that no line of a router's audit log was changed, taken out or put in; exit status 1 if one was."""
    from qis_connectors.router.audit_log import check

    lines, head, faults = check(log)
    for fault in faults:
        notice(fault)
    if faults:
        raise QisError(f"{log}: {len(faults)} of {lines} lines do not hold")
    notice(f"{log}: {lines} lines, each as it was written; the last one's hash is {head}")
