"""What the SQL of sql/ costs: all estimators of a million packets, beside the plainest query over the same columns.

python benchmarks/synthesis.py [--json] [--quick] [--large]

--large adds 100 M packets out of core: half an hour, and 20 GB of disk in TMPDIR.
"""

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
from figures import Figure, main

from pipelines.engine import spark_is_here
from pipelines.kept import kept_answers
from pipelines.synthesize import synthesize
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable

COLUMNS = "address, metric_name, intervention_type, node_id, packet_id, metric_delta, metric_stderr, sample_count"
PACKETS = """
SELECT
    'clinical.d' || (g % 10) || '/p' || g AS address,
    'site-' || (i // 100) AS node_id,
    i AS timestamp_utc,
    'clinical.d' || (g % 10) AS domain,
    'p' || g AS problem_type,
    'log_risk_ratio' AS metric_name,
    'drug' AS intervention_type,
    CAST(0.3 * sqrt(-2 * ln((hash(i, 1) % 1000003 + 1) / 1000004)) * cos(2 * pi() * (hash(i, 2) % 1000003) / 1000003)
        + 0.01 * (i % 13) AS FLOAT) AS metric_delta,
    CAST(0.05 + 0.3 * (hash(i, 3) % 1000) / 1000 AS FLOAT) AS metric_stderr,
    CAST(50 + hash(i, 4) % 2000 AS INTEGER) AS sample_count,
    md5('' || i) AS packet_id
FROM (SELECT i, i % {groups} * {apart} AS g FROM range({first}, {last}) AS numbers (i))
"""
LARGE = "--large" in sys.argv
OTHERS = ["robust", "shrunk", "tau2_interval"]
PASSES = 20
"""Passes over the packets in which pooled is made: one to take each id once, two to centre, two for Q, six Newton steps
of PM and REML that are two passes each, three to sum up. What a plain GROUP BY costs that many times is its floor."""
TIMED = 200
"""Groups that the loops of other programs are timed on: all would take minutes."""
# Both print seconds a group. What statsmodels says is no oracle: its DerSimonian-Laird goes below zero.
STATSMODELS = """
import csv, sys, time
from itertools import groupby
import numpy as np
from statsmodels.stats.meta_analysis import combine_effects
rows = list(csv.reader(open(sys.argv[1])))[1:]
groups = [np.array([one[1:] for one in of], float).T for _, of in groupby(rows, key=lambda row: row[0])]
start = time.perf_counter()
for group in groups:
    combine_effects(*group, method_re="iterated", use_t=True)
print((time.perf_counter() - start) / len(groups))
"""
METAFOR = """
suppressMessages(library(metafor))
groups <- split(read.csv(commandArgs(TRUE)[1]), ~ address)
start <- proc.time()[["elapsed"]]
for (group in groups) for (method in c("FE", "DL", "PM", "REML"))
    predict(rma(yi, vi, data = group, method = method, test = "knha"))
cat((proc.time()[["elapsed"]] - start) / length(groups))
"""


def measure(quick: bool) -> Iterable[Figure]:
    packets, groups = (200_000, 2_000) if quick else (1_000_000, 10_000)
    with TemporaryDirectory() as folder:
        file, table = Path(folder) / "packets.parquet", Path(folder) / "table"
        _write(file, packets, groups)
        yield from _in_memory_of(file, packets, groups, quick)
        yield from _incremental(table, packets, groups, quick)
        if not quick and spark_is_here() is None:
            yield Figure("the same on Spark, local[2], s, JVM warm", _on_spark(file))
    if LARGE:
        yield from _large()


def _in_memory_of(file: Path, packets: int, groups: int, quick: bool) -> Iterable[Figure]:
    pooled, floors = [], []
    for _ in range(3 if quick else 5):  # paired: the machine is shared
        floors.append(_seconds(lambda: _plain(file)))
        pooled.append(_seconds(lambda: _pooled(file)))
    behind = f"{packets:,} packets, {groups:,} groups: FE DL PM REML, HK, PI"
    yield Figure("pooled, s", median(pooled), "" if quick else "<= 1.2", behind)
    yield Figure("GROUP BY of the same Parquet columns, s", median(floors))
    ratio = median(one / (PASSES * floor) for one, floor in zip(pooled, floors, strict=True))
    yield Figure(f"pooled / {PASSES} such passes", ratio, "<= 2")
    yield Figure("robust, shrunk and tau2_interval besides, s", _seconds(lambda: _answers(file, OTHERS)))
    for name, what, command in (
        ("statsmodels", "DL, iterated PM", [sys.executable, "-c", STATSMODELS]),
        ("metafor", "FE DL PM REML, HK, PI", ["Rscript", "-e", METAFOR]),
    ):
        each = _loop(file, command)
        if isinstance(each, str):
            sys.stderr.write(f"  {name} is left out: {each}\n")
        else:
            behind = f"{TIMED} groups timed, {each * 1000:.1f} ms a group"
            yield Figure(f"a {name} loop ({what}) / pooled", each * groups / median(pooled), "", behind)


def _incremental(table: Path, packets: int, groups: int, quick: bool) -> Iterable[Figure]:
    """1 % new packets, at 1 % of the addresses, so that 2 % of all packets are read again.

    What keeps the ratio up at this size does not shrink with what is new: forty statements, the search of every
    packet's address, the whole answer read and written. One changed address costs half of what a hundred do.
    """
    _append(table, _made(0, packets, groups))
    kept, news, fulls = table.parent / "kept", [], []
    kept_answers(table, kept, ["pooled"])
    for turn in range(3):
        first = packets + turn * packets // 100
        _append(table, _made(first, first + packets // 100, groups // 100, apart=100))
        scratch = table.parent / f"scratch-{turn}"
        news.append(_seconds(lambda: kept_answers(table, kept, ["pooled"])))
        fulls.append(_seconds(lambda scratch=scratch: kept_answers(table, scratch, ["pooled"])))
    ratio = median(new / full for new, full in zip(news, fulls, strict=True))
    behind = f"{median(news):.3f} s / {median(fulls):.3f} s"
    yield Figure("incremental, 1 % new / from scratch", ratio, "" if quick else "<= 0.05", behind)


def _large(packets: int = 100_000_000) -> Iterable[Figure]:
    """A hundred packets a group, with 6 GB of memory for DuckDB and the rest on disk."""
    millions = f"{packets // 1_000_000} M packets"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "packets.parquet"
        _write(file, packets, packets // 100)
        with duckdb.connect(str(Path(folder) / "work.duckdb")) as connection:
            connection.execute(f"SET memory_limit = '6GB'; SET temp_directory = '{folder}/spill'")
            connection.read_parquet(str(file)).create_view("packets")
            seconds = _seconds(lambda: synthesize(connection, ["pooled"]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        yield Figure(f"{millions}, pooled, s", seconds, "", f"{file.stat().st_size / 1e9:.1f} GB of Parquet")
        yield Figure(f"{millions}, peak memory, GB", peak, "<= 8")


def _write(file: Path, packets: int, groups: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY ({PACKETS.format(groups=groups, apart=1, first=0, last=packets)}) TO '{file}' (FORMAT parquet)"
        )


def _made(first: int, last: int, groups: int, apart: int = 1) -> pa.Table:
    """The packets numbered from `first` to `last`, at the first `groups` of every `apart`-th address."""
    with duckdb.connect() as connection:
        return connection.sql(PACKETS.format(groups=groups, apart=apart, first=first, last=last)).to_arrow_table()


def _append(table: Path, rows: pa.Table) -> None:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in PACKET_TABLE_SCHEMA
    ]
    snapshot = PacketTable(table, create=True)
    snapshot.append(pa.Table.from_arrays(columns, schema=PACKET_TABLE_SCHEMA), "bench", (snapshot.version or 0) + 1)


def _plain(file: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "SELECT address, metric_name, intervention_type, count(*), sum(metric_delta), sum(metric_stderr), "
            "sum(sample_count), max(node_id), max(packet_id) "
            f"FROM read_parquet('{file}') GROUP BY ALL"
        ).fetchall()


def _pooled(file: Path) -> None:
    _answers(file, ["pooled"])


def _answers(file: Path, names: list[str]) -> dict[str, pa.Table]:
    with duckdb.connect() as connection:
        connection.read_parquet(str(file)).create_view("packets")
        return synthesize(connection, names)


def _on_spark(file: Path) -> float:
    from pipelines.engine import spark_session

    def run() -> None:
        session = spark_session().newSession()
        session.read.parquet(str(file)).createOrReplaceTempView("packets")
        synthesize(session, ["pooled"])

    run()
    return _seconds(run)


def _loop(file: Path, command: list[str]) -> float | str:
    """Seconds a group of another program's loop over groups, its start not counted; or why it cannot be had."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]}"
    table = file.with_name("groups.csv")
    with duckdb.connect() as connection:
        connection.read_parquet(str(file)).create_view("packets")
        connection.execute(
            "COPY (SELECT address, metric_delta AS yi, metric_stderr * metric_stderr AS vi FROM packets WHERE address "
            f"IN (SELECT DISTINCT address FROM packets ORDER BY 1 LIMIT {TIMED}) ORDER BY 1) TO '{table}' (HEADER)"
        )
    done = subprocess.run([*command, table], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else (done.stderr.splitlines() or ["no reason given"])[-1]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.argv = [given for given in sys.argv if given != "--large"]  # figures.main knows the two that all have
    main("Synthesis", measure)
