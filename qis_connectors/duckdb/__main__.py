"""python -m qis_connectors.duckdb: what to type in DuckDB's own shell, from any directory."""

import sys

from qis_connectors.duckdb.loading import EXTENSION

sys.stdout.write(f"LOAD '{EXTENSION}';\n")
