"""The router: an Arrow Flight server in front of a durable packet log."""

from qis_connectors.router.router import Router

__all__ = ["Router"]
