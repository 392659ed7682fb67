"""The router: an Arrow Flight server over a durable packet log."""

from qis_connectors.router.packet_log.backup import backup
from qis_connectors.router.packet_log.retention import Retention
from qis_connectors.router.router import Router

__all__ = ["Retention", "Router", "backup"]
