"""Packets in DuckDB: `connect()`, or `load(connection)` for one you have; then SQL.

SELECT * FROM qis_packets('grpc://router:8815', 'clinical.*');
"""

from qis_connectors.duckdb.loading import EXTENSION, attach, connect, load

__all__ = ["EXTENSION", "attach", "connect", "load"]
