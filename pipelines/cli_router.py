"""The commands that run a router or talk to one. As thin as cli.py."""

import json
import logging
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress

from pipelines.cli_site import IdentityFolder
from pipelines.output import Format, notice, notices, print_rows, say_receipt
from pipelines.shipped import shipped
from qis_connectors.errors import QisError

RouterUrl = Annotated[str, typer.Option("--router", help="The router, as grpc://HOST:PORT or grpc+tls://HOST:PORT.")]
Form = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
Filters = Annotated[
    str | None, typer.Option(metavar="JSON", help="""Only these, such as '["sample_count", ">=", 100]'.""")
]
SimilarTo = Annotated[
    str | None, typer.Option(metavar="JSON", help="""Only sites similar to this context: '{"latitude": 44}'.""")
]
Similarity = Annotated[Path | None, typer.Option(help="A folder of similarity definitions, not the shipped ones.")]
QUERY_COLUMNS = ("node_id", "metric_name", "metric_delta", "metric_stderr", "sample_count", "intervention_type")


def router(
    network: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serve this network's members only, over mutual TLS.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where to listen: grpc://127.0.0.1:8815, with a network grpc+tls://0.0.0.0:8815.",
        ),
    ] = None,
    store: Annotated[Path, typer.Option(help="The folder that keeps the packets.")] = Path("qis-store"),
    metrics: Annotated[str | None, typer.Option(help="Prometheus metrics there: HOST:PORT, or PORT.")] = None,
    log: Annotated[Literal["text", "json"], typer.Option(help="How events are written to standard error.")] = "text",
    keep_days: Annotated[float | None, typer.Option(min=0, help="Let packets go so long after they came.")] = None,
    keep_bytes: Annotated[int | None, typer.Option(min=1, help="Keep this much of each address, the newest.")] = None,
    similarity: Similarity = None,
    keys: Annotated[Path | None, typer.Option(help="Take only what a site with a NODE.pub there has signed.")] = None,
    quotas: Annotated[Path | None, typer.Option(help="A YAML file: what each site may use.")] = None,
) -> None:
    """Run a router until Ctrl-C: of a network, or in plain mode for whoever is on this machine.

    A packet it has acknowledged is on disk.
    """
    from qis_connectors.router import Retention, Router, logs

    logs.configure(log)
    retention = Retention(keep_days, keep_bytes)
    definitions = similarity or shipped("similarity")
    opened = Router(store, listen, metrics, retention, definitions, network, keys, quotas)
    with suppress(KeyboardInterrupt), opened as server:
        server.serve()


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


def deposit(
    file: Annotated[Path, typer.Argument(help="Packets as .parquet, .arrow or .csv.")],
    router: RouterUrl,
    identity: IdentityFolder = None,
    key: Annotated[Path | None, typer.Option(help="Sign them with this NODE.key, or a folder of them.")] = None,
) -> None:
    """Send the packets of a file to a router. One bad packet and none of them is sent."""
    from pipelines.packet_file import read_packets
    from qis_connectors.client import RouterClient
    from qis_connectors.signing import sign

    packets = read_packets(file)
    if key:
        packets = sign(packets, key)
    with RouterClient(router, identity) as client:
        say_receipt(client.deposit(packets))


def addresses(
    router: RouterUrl,
    pattern: Annotated[str, typer.Argument(metavar="[GLOB]", help="Which: an address, a prefix or a glob.")] = "*",
    form: Form = Format.table,
    identity: IdentityFolder = None,
) -> None:
    """List the addresses of a router with what is stored at them."""
    from qis_connectors.client import RouterClient

    with RouterClient(router, identity) as client:
        print_rows(client.addresses(pattern), form)


def query(
    address: Annotated[str, typer.Argument(help="An address, a prefix or a glob such as 'clinical.*'.")],
    router: RouterUrl,
    since: Annotated[int | None, typer.Option(help="Only what was stored after this cursor.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns: a,b,c.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many packets.")] = None,
    filters: Filters = None,
    similar_to: SimilarTo = None,
    threshold: Annotated[
        float | None, typer.Option(help="At least this similar, 0 to 1; the definition's own if not given.")
    ] = None,
    definition: Annotated[
        str | None, typer.Option(help="The similarity definition; that of the address's domain if not given.")
    ] = None,
    form: Form = Format.table,
    identity: IdentityFolder = None,
) -> None:
    """Print the packets at an address, and on standard error the cursor to go on from."""
    from qis_connectors.client import RouterClient
    from qis_connectors.request import similar

    wanted = [name.strip() for name in columns.split(",")] if columns is not None else None
    where, like = read_json("--filters", filters), similar(read_json("--similar-to", similar_to), threshold, definition)
    with RouterClient(router, identity) as client:
        packets = client.read(address, since=since, columns=wanted, limit=limit, filters=where, similar_to=like)
    shown = (*QUERY_COLUMNS, "similarity") if like else QUERY_COLUMNS
    print_rows(packets.table, form, None if wanted else shown)
    notice(f"{packets.table.num_rows} packets; go on with --since {packets.cursor}")


def watch(
    address: Annotated[str, typer.Argument(help="An address, a prefix or a glob such as 'clinical.*'.")],
    router: RouterUrl,
    since: Annotated[int | None, typer.Option(help="Only what was stored after this cursor.")] = None,
    filters: Filters = None,
    form: Annotated[Format, typer.Option("--format", help="How rows are printed; json: one object a line.")] = (
        Format.table
    ),
    identity: IdentityFolder = None,
) -> None:
    """Print the packets at an address, then those that arrive, until Ctrl-C. Comes back when the router does."""
    from pipelines.output import RowStream
    from qis_connectors.client import RouterClient

    logging.basicConfig(level=logging.INFO, format="qis: %(message)s")
    rows = RowStream(form, QUERY_COLUMNS)
    cursor, wanted = since or 0, read_json("--filters", filters)
    with (
        suppress(KeyboardInterrupt),
        RouterClient(router, identity) as client,
        closing(client.watch(address, since, filters=wanted)) as news,
    ):
        notice(f"watching {address}; Ctrl-C stops it")
        for packets in news:
            rows.print(packets.table)
            cursor = packets.cursor
    notice(f"go on with --since {cursor}")


def read_json(option: str, text: str | None) -> Any:  # noqa: ANN401
    """What JSON says; whether it makes sense the router says."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QisError(f"{option} is not JSON: {_place(error)}") from None


def _place(error: Exception) -> str:
    return f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
