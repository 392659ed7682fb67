"""Who calls: the one answer that quotas and the audit log go by."""

from pyarrow import flight


def caller(context: flight.ServerCallContext) -> str:
    """The identity the connection has proved; where it has none, the host it comes from."""
    identity: str = context.peer_identity().decode(errors="replace")
    return identity or host(context.peer())


def host(peer: str) -> str:
    """ipv4:127.0.0.1:5000 -> 127.0.0.1: a client has as many ports as it wants."""
    return peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]") or peer
