"""Building the extension and bringing it into DuckDB, and what is said where that cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pytest

from qis_connectors import QisError
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.duckdb import loading

ROOT = Path(__file__).parent.parent


def test_before_load_there_is_nothing_and_after_it_everything():
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        with pytest.raises(duckdb.CatalogException, match="qis_packets"):
            connection.execute("FROM qis_packets('grpc://127.0.0.1:1', '*')")
        assert qis_duckdb.load(connection) is connection
        qis_duckdb.load(connection)
        found = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name LIKE 'qis%'"
        )
        assert {name for (name,) in found.fetchall()} == {"qis_packets", "qis_addresses", "qis_attach"}


def test_a_database_that_takes_no_unsigned_extension_is_told_what_to_type():
    with duckdb.connect() as connection, pytest.raises(QisError, match="allow_unsigned_extensions") as raised:
        qis_duckdb.load(connection)
    assert "\n" not in str(raised.value)


def test_an_extension_that_was_not_built_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "EXTENSION", tmp_path / "qis.duckdb_extension")
    with pytest.raises(QisError, match=r"without its DuckDB extension.*C\+\+ compiler"):
        qis_duckdb.connect()


def test_an_extension_for_another_duckdb_says_what_to_do(monkeypatch, tmp_path):
    other = tmp_path / "qis.duckdb_extension"
    other.write_bytes(qis_duckdb.EXTENSION.read_bytes().replace(b"v1.5.6\0", b"v9.5.6\0"))
    monkeypatch.setattr(loading, "EXTENSION", other)
    with pytest.raises(QisError, match="does not fit what is installed; install qis-connectors again") as raised:
        qis_duckdb.connect()
    assert "\n" not in str(raised.value)


def test_the_line_for_the_shell_works_in_any_directory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "qis_connectors.duckdb"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    # In a process that has not imported pyarrow: the extension finds its libraries by itself.
    code = f"""
import sys, duckdb
duckdb.connect(config={{"allow_unsigned_extensions": "true"}}).execute({done.stdout!r})
assert "pyarrow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def wheel(folder, **environment):
    """The files in a wheel of a copy of this project, and what was said."""
    copy = folder / "copy"
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for name in tracked.splitlines():
        if not name.startswith(("tests/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=copy, env=environment)
    (path,) = (folder / "dist").glob("*.whl")
    with ZipFile(path) as archive:
        return path.name, archive.namelist(), done.stderr + done.stdout


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"PATH": ""}, "there is no C++ compiler"), ({"PIP_NO_INDEX": "1"}, "DuckDB's headers cannot be downloaded")],
)
def test_without_a_compiler_or_a_network_all_the_rest_is_built_and_one_line_says_so(tmp_path, environment, reason):
    name, files, said = wheel(tmp_path, **{"PATH": os.environ["PATH"], **environment})
    assert name.endswith("-py3-none-any.whl")
    assert "qis_connectors/duckdb/loading.py" in files
    assert "qis_connectors/duckdb/qis.duckdb_extension" not in files
    (line,) = [line for line in said.splitlines() if "DuckDB extension" in line]
    assert f"installed without its DuckDB extension: {reason}" in line


@pytest.mark.slow
def test_a_wheel_carries_the_extension(tmp_path):
    name, files, _ = wheel(tmp_path, PATH=os.environ["PATH"])
    assert "qis_connectors/duckdb/qis.duckdb_extension" in files
    assert not name.endswith("-any.whl")
