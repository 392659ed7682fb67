"""Packets to send and a real router to send them to."""

import resource
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pyarrow as pa
import pytest
from any_packets import ROWS, any_packets
from meta_analysis import classic, run

from pipelines import cli
from qis_connectors import duckdb as qis_duckdb
from qis_connectors.client import RouterClient
from qis_connectors.network import folder
from qis_connectors.network.identity import Identity
from qis_connectors.packet import INTERCHANGE_SCHEMA
from qis_connectors.router import Router


@pytest.fixture(scope="session")
def packet_row():
    """packet_row(**changes): the fifteen fields of one valid packet, as a dict."""

    def make(**changes):
        return {
            "node_id": "site-a",
            "timestamp_utc": 1_700_000_000_000,
            "domain": "clinical.tuberculosis",
            "problem_type": "bcg_vaccine",
            "model_architecture": "two_arm_comparison",
            "training_phase": "follow_up_14d",
            "metric_name": "log_risk_ratio",
            "metric_delta": -0.5,
            "metric_value": 0.25,
            "confidence": 0.875,
            "intervention_type": "bcg_vaccination",
            "intervention_params": '{"dose":1}',
            "outcome_decile": 5,
            "sample_count": 262,
            "raw_data_hash": "0" * 64,
            **changes,
        }

    return make


@pytest.fixture(scope="session")
def packets(packet_row):
    """packets(n, start=0, **changes): a fifteen-field table of n packets, one millisecond apart from `start` on."""

    def make(n, start=0, **changes):
        rows = [packet_row(timestamp_utc=1_700_000_000_000 + start + at, **changes) for at in range(n)]
        return pa.Table.from_pylist(rows, schema=INTERCHANGE_SCHEMA).combine_chunks()

    return make


@pytest.fixture
def router(tmp_path):
    with Router(tmp_path / "router", "grpc://127.0.0.1:0") as router:
        yield router


@pytest.fixture
def network(tmp_path):
    """A network with the sites site-a and site-b, which may do anything but speak for each other."""
    made = folder.init(tmp_path / "network")
    made.add("site-a")
    made.add("site-b")
    return made


@pytest.fixture
def strict(tmp_path, network):
    """Its router."""
    with Router(tmp_path / "router", "grpc+tls://127.0.0.1:0", network=network.folder) as router:
        yield router


@pytest.fixture
def site_a(network):
    return Identity(network.bundle("site-a"))


@pytest.fixture
def site_b(network):
    return Identity(network.bundle("site-b"))


@pytest.fixture(scope="session")
def spark():
    """The one Spark session of the process, the same that `distill` on Spark uses, with format("qis")."""
    from pipelines.engine import spark_is_here, spark_session

    if missing := spark_is_here():
        pytest.skip(missing)
    from qis_connectors.spark import register

    session = spark_session()
    register(session)
    return session


@pytest.fixture(autouse=True)
def active_session(request):
    """Spark looks data sources up in the session that was active last, and other tests have sessions of their own."""
    if "spark" in request.fixturenames:
        request.getfixturevalue("spark").createDataFrame([], "x int")


@pytest.fixture(scope="session")
def classic_answers():
    """Every answer to the four classic data sets."""
    return run(classic())


@pytest.fixture(scope="session")
def count_of():
    """count_of(router, metric): what a router that was made with metrics has counted."""

    def read(router, metric):
        with urllib.request.urlopen(router.metrics_url) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))

    return read


@pytest.fixture
def full_disk():
    """with full_disk(bytes): no file of this process can be written to beyond so many bytes."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """The url of a router with ROWS packets at six addresses, and these packets in the router's order."""
    with (
        Router(tmp_path_factory.mktemp("filled") / "store", "grpc://127.0.0.1:0") as router,
        RouterClient(router.url) as client,
    ):
        client.deposit(any_packets(ROWS))
        yield router.url, client.read("*").table


@pytest.fixture
def connection():
    """A DuckDB connection with the extension."""
    with qis_duckdb.connect() as connection:
        yield connection


SERVE = """
import sys
import urllib.request
from pathlib import Path
from qis_connectors.router import Router
router = Router(Path(sys.argv[1]), sys.argv[2])
print(router.url, flush=True)
router.serve()
"""


@pytest.fixture
def router_process(tmp_path):
    """router_process(argument="grpc://127.0.0.1:0", script=SERVE) -> (process, url): a router in a process of its own.

    All of a test's are on one and the same store.
    """
    started = []

    def run(argument="grpc://127.0.0.1:0", script=SERVE):
        command = [sys.executable, "-c", script, str(tmp_path / "store"), argument]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def qis(monkeypatch, capfdbinary):
    """Runs `qis ARGS` in this process: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qis", *map(str, arguments)])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfdbinary.readouterr()
        return int(end.value.code or 0), out.decode(), err.decode()

    return run
