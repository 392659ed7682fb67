"""The files of tests/sql: statements and what they must give, in DuckDB over a router with ten packets.

`statement ok`, `statement error` (after ---- what its line must contain) and `query` (after ---- its rows, tabs between
the values), with a blank line between them; ${ROUTER} is the router's url.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient

FILES = sorted((Path(__file__).parent / "sql").glob("*.test"))


@pytest.fixture
def url(router, packets):
    groups = [
        packets(5),
        packets(2, 5, problem_type="bcg vaccine/β", sample_count=263),
        packets(3, 7, domain="clinical.stroke", problem_type="thrombolysis"),
    ]
    with RouterClient(router.url) as client:
        client.deposit(pa.concat_tables(groups))
    return router.url


def records(path):
    """(line number, kind, sql, expected lines)"""
    text = path.read_text(encoding="utf-8")
    line = 1
    for block in text.split("\n\n"):
        kept = [row for row in block.splitlines() if not row.startswith("#")]
        if kept:
            sql, _, expected = "\n".join(kept[1:]).partition("\n----")
            yield line, kept[0], sql, expected.strip("\n").split("\n") if expected.strip("\n") else []
        line += block.count("\n") + 2


def cell(value):
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).lower()
    if isinstance(value, bytes):
        return "".join(f"\\x{byte:02X}" for byte in value)
    return f"{value:.6g}" if isinstance(value, float) and value != int(value) else str(value)


def check(connection, kind, sql, expected):
    if kind == "statement error":
        with pytest.raises(duckdb.Error) as raised:
            connection.execute(sql).fetchall()
        assert expected[0] in str(raised.value).replace("\n", " | ")
        return
    rows = connection.execute(sql).fetchall()
    if kind == "query":
        assert ["\t".join(map(cell, row)) for row in rows] == expected
    else:
        assert kind == "statement ok"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_sql(path, url):
    cases = list(records(path))
    assert len(cases) >= 3
    with qis_duckdb.connect() as connection:
        for line, kind, sql, expected in cases:
            try:
                check(connection, kind, sql.replace("${ROUTER}", url), expected)
            except (AssertionError, duckdb.Error) as error:
                raise AssertionError(f"{path.name}:{line}: {sql}\n{error}") from error


def test_the_files_are_there():
    assert {path.stem for path in FILES} >= {"packets", "addresses", "attach", "copy", "errors"}
