"""Bringing the extension into a DuckDB connection."""

from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from qis_connectors.errors import QisError

EXTENSION = Path(__file__).with_name("qis.duckdb_extension")
_UNSIGNED = {"allow_unsigned_extensions": "true"}


def connect(database: str | Path = ":memory:", *, read_only: bool = False) -> DuckDBPyConnection:
    """A connection with the extension loaded; QisError, in one line, where it cannot be."""
    return load(duckdb.connect(str(database), read_only=read_only, config=dict(_UNSIGNED)))


def load(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """The same connection, with qis_packets, qis_addresses, qis_attach and FORMAT qis in all of its database.

    QisError, in one line that says what to do, where the extension is not built, was built for other versions, or the
    database was not opened with `config={"allow_unsigned_extensions": "true"}`, which DuckDB takes at opening only.
    """
    if not EXTENSION.exists():
        raise QisError(
            "qis_connectors was installed without its DuckDB extension: with a C++ compiler (Debian: g++) and a "
            "network, install it again"
        )
    # The extension is linked to pyarrow's libraries: what is in the process already need not be found.
    from pyarrow import flight  # noqa: F401

    try:
        connection.execute(f"LOAD '{str(EXTENSION).replace(chr(39), 2 * chr(39))}'")
    except duckdb.Error as error:
        raise QisError(_reason(str(error))) from None
    return connection


def attach(connection: DuckDBPyConnection, url: str, name: str) -> None:
    """The database `name` of views on the router at `url`: a schema for each domain, a view for each problem type.

    `SELECT * FROM net."clinical.tuberculosis".bcg_vaccine` then reads what the router holds at that moment. Attach
    again to see new addresses. QisError where the router cannot be reached.
    """
    try:
        for (statement,) in connection.execute("SELECT statement FROM qis_attach(?, ?)", [url, name]).fetchall():
            connection.execute(statement)
    except duckdb.Error as error:
        raise QisError(str(error).splitlines()[0].partition("Error: ")[2]) from None


def _reason(text: str) -> str:
    if "unsigned extensions are disabled" in text:
        return (
            "this database does not take unsigned extensions: open it with qis_connectors.duckdb.connect(), or with "
            'duckdb.connect(..., config={"allow_unsigned_extensions": "true"})'
        )
    line = text.splitlines()[0]
    if "cannot open shared object" in text or "Library not loaded" in text or "version" in text:
        return f"the DuckDB extension does not fit what is installed; install qis-connectors again: {line}"
    return f"the DuckDB extension cannot be loaded: {line}"
