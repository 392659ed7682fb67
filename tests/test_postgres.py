"""Rows that a real Postgres gives, where one can be started."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_effects import KINDS, VISITS, study, visits

from pipelines.distill import distill
from pipelines.engine import EngineError
from pipelines.study_fields import Query

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
INITDB = shutil.which("initdb") or (str(BINARIES) if BINARIES else None)

pytest.importorskip("adbc_driver_postgresql")
pytestmark = pytest.mark.skipif(INITDB is None, reason="there is no Postgres to start")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The URI of a database with the table `visits`, reached by its socket alone."""
    folder = tmp_path_factory.mktemp("postgres")
    owner = {}
    if os.geteuid() == 0:  # Postgres will not run as root
        shutil.chown(folder, "nobody")
        for parent in folder.parents:
            if parent.stat().st_mode & 0o077 == 0:  # pytest's, which nobody else may enter
                parent.chmod(0o755)
        owner = {"user": "nobody"}
    initdb = Path(str(INITDB)).resolve()
    subprocess.run(
        [initdb, "-D", folder / "data", "-U", "qis", "--auth=trust", "--no-sync"],
        check=True, capture_output=True, cwd="/", **owner,
    )  # fmt: skip
    server = [initdb.with_name("pg_ctl"), "-D", folder / "data", "-w", "-l", folder / "log"]
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    subprocess.run([*server, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/", **owner)
    uri = f"postgresql:///postgres?host={folder}&user=qis"
    try:
        visits().write_database("visits", uri, engine="adbc")
        yield uri
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/", **owner)


def test_a_postgres_query_gives_the_packets_of_its_table(tmp_path, database):
    visits().write_parquet(tmp_path / "visits.parquet")
    plan = study(VISITS, outcome=KINDS["binary"], effect="log_odds_ratio")
    reference = distill(plan, "x", tmp_path / "visits.parquet").packets.drop(["packet_id", "raw_data_hash"])
    asked = plan.model_copy(update={"rows": Query(query="SELECT * FROM visits", database=database)})
    ((site, rows),) = asked.row_files(tmp_path).items()
    for engine in ("polars", "duckdb"):
        packets = distill(asked, site, rows, engine).packets
        assert packets.drop(["packet_id", "raw_data_hash"]).equals(reference)
    assert rows.with_name(rows.name + ".salt").exists()


def test_what_postgres_refuses_is_one_line(tmp_path, database):
    plan = study(VISITS, outcome=KINDS["binary"], effect="log_odds_ratio")
    for query, uri in (("SELECT nothing", database), ("SELECT 1", "postgresql:///x?host=/nowhere")):
        asked = plan.model_copy(update={"rows": Query(query=query, database=uri)})
        with pytest.raises(EngineError, match=r"cannot be read as a table: [^\n]+$"):
            distill(asked, "x", tmp_path / "s.postgres")
