"""The commands of a network's operator, and the one for a member's token. As thin as cli.py, which they are part of."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.output import notice

Folder = Annotated[Path, typer.Option("--network", metavar="DIR", help="The network's folder.")]
Site = Annotated[str, typer.Argument(metavar="SITE", help="The site's name: the node_id of its packets.")]
network_app = typer.Typer(help="Make a network; let sites in and out.", no_args_is_help=True)


@network_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
    name: Annotated[str | None, typer.Option(help="The network's name; the folder's, if not given.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Add this site; may be given more than once.")] = None,
) -> None:
    """Make a network: its authority, its router's certificate, its policy, an operator's bundle and sites'."""
    from qis_connectors.network import folder as folders

    network = folders.init(folder, name)
    notice(f"{network.bundle(folders.OPERATOR)}: your own bundle, as the operator")
    for one in site or []:
        _say_bundle(network.add(one))
    notice(f"{network.policy}: who may do what, for you to read and change")
    notice(f"{folder / 'ca.key.pem'}: keep it to yourself: whoever has it can let anybody in")
    notice(f"qis router --network {folder}   starts the router")


@network_app.command()
def add(site: Site, network: Folder) -> None:
    """Let a site in: make its bundle, and a line in the policy. A router that runs knows it from then on."""
    from qis_connectors.network.folder import NetworkFolder

    _say_bundle(NetworkFolder(network).add(site))


@network_app.command()
def rotate(site: Site, network: Folder) -> None:
    """Give a site, the operator or the router new keys; a member's old ones are refused from then on."""
    from qis_connectors.network.folder import ROUTER, NetworkFolder

    made = NetworkFolder(network).rotate(site)
    if site == ROUTER:
        notice(f"{made}: the router's new certificate; start the router again")
    else:
        _say_bundle(made)


@network_app.command()
def revoke(site: Site, network: Folder) -> None:
    """Let a site out, from now on: its calls are refused and its open streams end. What it has deposited stays."""
    from qis_connectors.network.folder import NetworkFolder

    NetworkFolder(network).revoke(site)
    notice(f"{site} is no member any more")


def token(
    identity: Annotated[
        Path, typer.Option(metavar="DIR", envvar="QIS_IDENTITY", help="The folder of your bundle.", show_envvar=True)
    ],
) -> None:
    """Print a token that is good for five minutes, for DuckDB's own shell: SET qis_token = '...'."""
    from qis_connectors.network.identity import Identity

    typer.echo(Identity(identity).token())


def _say_bundle(folder: Path) -> None:
    notice(f"{folder}: the bundle of {folder.name}; give it to them over a safe channel, and to nobody else")
