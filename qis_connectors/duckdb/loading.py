"""Bringing the extension into a DuckDB connection."""

import ctypes
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from qis_connectors.errors import QisError

EXTENSION = Path(__file__).with_name("qis.duckdb_extension")
_UNSIGNED = {"allow_unsigned_extensions": "true"}


def connect(
    database: str | Path = ":memory:", *, read_only: bool = False, identity: Path | str | None = None
) -> DuckDBPyConnection:
    """A connection with the extension loaded; QisError, in one line, where it cannot be. `identity` as for `load`."""
    return load(duckdb.connect(str(database), read_only=read_only, config=dict(_UNSIGNED)), identity)


def load(connection: DuckDBPyConnection, identity: Path | str | None = None) -> DuckDBPyConnection:
    """The same connection, with qis_packets, qis_addresses, qis_attach and FORMAT qis in all of its database.

    `identity` is the folder of the bundle to be known by at the routers of a network; QIS_IDENTITY names it where it is
    not given.

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
        connection.execute(f"LOAD {_quoted(EXTENSION)}")
        if identity:
            connection.execute(f"SET GLOBAL qis_identity = {_quoted(identity)}")
        ctypes.CDLL(str(EXTENSION)).qis_set_token_source(_TOKEN_SOURCE)
    except (duckdb.Error, AttributeError) as error:
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


def _write_token(folder: bytes, text: int, size: int) -> bool:
    """For the extension, every few minutes: a token for the bundle in a folder, or else what is wrong with it."""
    from qis_connectors.network.identity import Identity

    try:
        said, is_token = Identity(folder.decode()).token(), True
    except QisError as error:
        said, is_token = str(error), False
    cut = said.encode()[: size - 1] + b"\0"
    ctypes.memmove(text, cut, len(cut))
    return is_token


# For as long as the process lives, and with it the extension.
_TOKEN_SOURCE = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(_write_token)


def _quoted(text: Path | str) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _reason(text: str) -> str:
    if "unsigned extensions are disabled" in text:
        return (
            "this database does not take unsigned extensions: open it with qis_connectors.duckdb.connect(), or with "
            'duckdb.connect(..., config={"allow_unsigned_extensions": "true"})'
        )
    line = text.splitlines()[0]
    if any(sign in text for sign in ("cannot open shared object", "undefined symbol", "Library not loaded", "version")):
        return f"the DuckDB extension does not fit what is installed; install qis-connectors again: {line}"
    return f"the DuckDB extension cannot be loaded: {line}"
