"""The DuckDB extension beside Parquet and Python: python benchmarks/duckdb_extension.py [--quick] [--json]

Not duckdb.py: a script's folder comes first on the path, and that name would hide the library from it. The router is a
process of its own on the same cores, as it is for Python; Parquet has no such neighbour.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from counting_proxy import counting_proxy
from figures import Figure, main
from load import ADDRESS, packets, paired
from pyarrow import flight
from stores import server

from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.outgoing import CHUNK_ROWS
from qis_connectors.packet import INTERCHANGE_SCHEMA

ROOT = Path(__file__).parent.parent
BLOCK = 50_000
NAMES = INTERCHANGE_SCHEMA.names
COLUMNS = ", ".join(NAMES)


def measure(quick: bool) -> Iterator[Figure]:
    rows, rounds = (200_000, 2) if quick else (2_000_000, 5)
    with TemporaryDirectory(prefix="qis-benchmark-") as name:
        folder = Path(name)
        with server("router", folder / "store") as url:
            fill(url, rows)
            for threads in (1, 2):
                yield from reads(url, folder, threads, rounds)
            yield from sent(url)
            yield peak_memory(url)
        with server("router", folder / "deposits") as url:
            yield from deposits(url, rounds)
    if not quick:
        yield build()


def fill(url: str, rows: int) -> None:
    with RouterClient(url) as client:
        for _ in range(0, rows, BLOCK):
            client.deposit(packets(BLOCK))


def reads(url: str, folder: Path, threads: int, rounds: int) -> Iterator[Figure]:
    file = folder / "packets.parquet"
    if not file.exists():
        with flight.connect(url) as client:
            pq.write_table(client.do_get(request(NAMES)).read_all(), file, compression="zstd")
    with qis_duckdb.connect() as connection, flight.connect(url) as client:
        connection.execute(f"SET threads = {threads}")

        def create(source: str) -> float:
            elapsed = timed(lambda: connection.execute(f"CREATE TABLE made AS SELECT {COLUMNS} FROM {source}"))
            connection.execute("DROP TABLE made")
            return elapsed

        def create_from_python() -> float:
            connection.register("reader", client.do_get(request(NAMES)).to_reader())
            elapsed = create("reader")
            connection.unregister("reader")
            return elapsed

        # The least that any source could take: the same rows as an Arrow table of this process.
        connection.register("in_memory", pq.read_table(file))
        ours, parquet, python, memory = paired(
            rounds,
            lambda: create(f"qis_packets('{url}', '*')"),
            lambda: create(f"read_parquet('{file}')"),
            create_from_python,
            lambda: create("in_memory"),
        )
        behind = f"{ours:.2f} s, Parquet {parquet:.2f} s, RecordBatchReader {python:.2f} s; no router: {memory:.2f} s"
        name = f"CREATE TABLE AS, {threads} thread{'s' * (threads > 1)}"
        yield Figure(f"{name} / zstd Parquet", ours / parquet, "<= 0.5", behind)
        yield Figure(f"{name} / RecordBatchReader", ours / python, "<= 0.6", behind)

        def aggregate() -> object:
            sql = f"SELECT count(*), avg(metric_value) FROM qis_packets('{url}', '*')"
            return connection.execute(sql).fetchone()

        def aggregate_in_python() -> object:
            table = client.do_get(request(["metric_value"])).read_all()
            return table.num_rows, pc.mean(table["metric_value"]).as_py()

        ours, python = paired(2 * rounds, lambda: timed(aggregate), lambda: timed(aggregate_in_python))
        yield Figure(
            f"count(*), avg(metric_value), {threads} thread{'s' * (threads > 1)} / Python",
            ours / python,
            "<= 1.2",
            f"{1000 * ours:.0f} ms, Python {1000 * python:.0f} ms",
        )


def sent(url: str) -> Iterator[Figure]:
    with qis_duckdb.connect() as connection:

        def of(more: str) -> int:
            with counting_proxy(url) as (way, counts):
                connection.execute(f"SELECT max(COLUMNS(*)) FROM qis_packets('{way}', '*'{more})").fetchall()
                return sum(counts)

        whole, kept = of(""), of(""", filters := '["sample_count", "<", 111]'""")
    yield Figure("filter keeping 1 %: bytes sent / all", kept / whole, "<= 0.03", f"{kept:,} of {whole:,} bytes")


def peak_memory(url: str) -> Figure:
    """Of a process that does nothing else, as Linux says it; getrusage would count the parent before exec."""
    code = (
        "from pathlib import Path; from qis_connectors import duckdb;"
        "c = duckdb.connect(); c.execute('SET threads = 2; SET enable_progress_bar = false');"
        f"""c.execute("SELECT max(COLUMNS(*)) FROM qis_packets('{url}', '*')").fetchall();"""
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Figure("SELECT * into an aggregate: peak MB", int(done.stdout) * 1024 / 1e6, "<= 350", "the process, whole")


def deposits(url: str, rounds: int) -> Iterator[Figure]:
    with qis_duckdb.connect() as connection, RouterClient(url) as client:

        def copy() -> float:
            connection.register("fresh", fresh())
            return timed(lambda: connection.execute(f"COPY (FROM fresh) TO '{url}' (FORMAT qis)"))

        def in_a_transaction() -> float:
            table = fresh()

            def deposit() -> None:
                with client.transaction() as transaction:
                    # What do_put does, without the client's own checks: the router's are the same for all.
                    transaction._stage(json.dumps({"v": 1, "transaction": transaction.id}).encode(), table)

            return timed(deposit)

        def plain() -> float:
            table = fresh()
            return timed(lambda: client._put(flight.FlightDescriptor.for_path(ADDRESS), table))

        ours, alike, bare = paired(rounds, copy, in_a_transaction, plain)
    speeds = [f"{2 * BLOCK / seconds:,.0f}" for seconds in (ours, alike, bare)]
    behind = f"{speeds[0]} rows/s, Python {speeds[1]} in a transaction, {speeds[2]} without"
    yield Figure("COPY TO / Python's do_put in a transaction", alike / ours, ">= 0.9", behind)
    yield Figure("COPY TO / Python's do_put, not all or nothing", bare / ours, ">= 0.9", f"{CHUNK_ROWS} rows a batch")


def fresh() -> pa.Table:
    return pa.Table.from_batches([packets(BLOCK), packets(BLOCK)])


def build() -> Figure:
    """From nothing, DuckDB's headers fetched."""
    sys.path.insert(0, str(ROOT))
    import hatch_build

    with TemporaryDirectory() as name:
        shutil.copytree(ROOT / hatch_build.SOURCES, Path(name) / hatch_build.SOURCES)
        elapsed = timed(lambda: hatch_build.build(Path(name), "0", is_editable=False))
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Figure(
        "build of the extension, s", elapsed, "<= 60", f"{cpu.ru_utime + cpu.ru_stime:.0f} s of processor, all children"
    )


def request(columns: list[str]) -> flight.Ticket:
    return flight.Ticket(json.dumps({"v": 1, "address": "*", "columns": columns}).encode())


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main("The DuckDB extension beside Parquet and Python", measure)
