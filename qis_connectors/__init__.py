"""The wire: outcome packets and how they travel. Raw rows stay at the site; only packets travel."""

from qis_connectors.errors import QisError
from qis_connectors.node import Node
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA, PacketError

__all__ = ["INTERCHANGE_SCHEMA", "OUTCOME_PACKET_SCHEMA", "Node", "PacketError", "QisError"]
