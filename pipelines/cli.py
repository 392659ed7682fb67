"""The `qis` command. It reads arguments, calls one function and prints; what the words mean is decided elsewhere."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from pipelines.cli_network import network_app, token
from pipelines.cli_router import addresses, backup, deposit, query, router, watch
from pipelines.cli_site import distill, study_app
from pipelines.cli_table import accumulate, elect, report, synthesize
from pipelines.cli_trust import audit_app, key, quarantine, verify
from pipelines.output import notice, notices
from qis_connectors.errors import QisError

# Commands import what they run when they run, so that `qis --help` and shell loops do not wait for Polars and DuckDB.
Engine = Literal["polars", "spark"]
app = typer.Typer(
    help="Outcome packets instead of rows: raw rows stay at the site; only packets travel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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


for command in (router, backup, distill, deposit, addresses, query, watch, accumulate, synthesize, elect, report):
    app.command()(command)
app.add_typer(study_app, name="study")
app.add_typer(network_app, name="network")
for of_trust in (token, key, verify, quarantine):
    app.command()(of_trust)
app.add_typer(audit_app, name="audit")


def main() -> None:
    """The console script: a mistake of the user's is one line on standard error and exit status 1."""
    if "router" not in sys.argv[1:2]:  # there an operator wants to see the handshakes that failed, too
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app()
    except QisError as error:
        notice(f"qis: {error}")
    except OSError as error:
        notice(f"qis: {error.filename}: {error.strerror}" if error.filename else f"qis: {error}")
    sys.exit(1)
