"""Where a site's rows are counted: Polars or DuckDB here, or Spark. All give narwhals frames, so one job serves."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import duckdb
import narwhals as nw
import polars as pl

from pipelines.study_fields import Query
from qis_connectors.delta_rows import DeltaRows
from qis_connectors.errors import QisError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Engine = Literal["polars", "duckdb", "spark"]
OLDEST_JAVA = 17


class EngineError(QisError):
    """The engine asked for cannot run here, or cannot read this table."""


def spark_is_here() -> str | None:
    """None where Spark can run; otherwise what is missing."""
    if importlib.util.find_spec("pyspark") is None:
        return "pyspark is not installed (pip install 'qis-connectors[spark]')"
    version = _java_version()
    if version is None:
        return f"Java {OLDEST_JAVA} or newer was not found"
    return None if version >= OLDEST_JAVA else f"Java {version} was found, and Spark needs {OLDEST_JAVA} or newer"


@cache
def _java_version() -> int | None:
    """The major version of the Java that Spark would start; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        return None
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else None


def engine_named(name: str) -> Engine:
    """The engine of a name, or Spark at a master's URL (spark://HOST:PORT, local[4]), whose session then is started."""
    for known in get_args(Engine):
        if name == known:
            return cast("Engine", known)
    if "://" not in name and not name.startswith("local["):
        raise EngineError(f"engine {name!r} is none of polars, duckdb, spark and no URL of a Spark master")
    if missing := spark_is_here():
        raise EngineError(f"engine spark: {missing}; --engine polars works without")
    spark_session(name)
    return "spark"


def scan(rows: Path, engine: Engine, query: Query | None = None) -> nw.LazyFrame[Any]:
    """The table at `rows` (a Parquet or CSV file, a Delta folder), or what `query` gives, not yet read."""
    kind = "delta" if (rows / "_delta_log").is_dir() else rows.suffix.lower().lstrip(".")
    if query is not None:
        return _answer(rows, engine, query)
    if kind not in _POLARS:
        raise EngineError(f"{rows}: rows are a .parquet or .csv file or a Delta folder")
    if engine == "polars":
        return _lazy(_POLARS[kind](rows))
    if engine == "duckdb":
        connection = duckdb.connect()
        if kind == "delta":
            return _lazy(connection.from_arrow(DeltaRows(rows).dataset))
        return _lazy(connection.read_parquet(str(rows)) if kind == "parquet" else connection.read_csv(str(rows)))
    if missing := spark_is_here():
        raise EngineError(f"engine spark: {missing}; --engine polars works without")
    reader = spark_session().read
    if kind == "delta":
        return _lazy(_delta_on_spark(rows))
    return _lazy(
        reader.parquet(str(rows)) if kind == "parquet" else reader.csv(str(rows), header=True, inferSchema=True)
    )


def _delta_on_spark(rows: Path) -> "DataFrame":
    """The table's own files and schema: in the session that is there, which need not know Delta and so needs no jar."""
    from pyspark.sql.functions import broadcast, col
    from pyspark.sql.types import StructType

    table, session = DeltaRows(rows), spark_session()
    schema = StructType.fromJson(table.spark_schema)
    if not table.files:
        return session.createDataFrame([], schema)
    folders = table.folders
    inside = StructType([field for field in schema.fields if field.name not in folders.column_names])
    read = session.read.schema(inside).parquet(*table.files)
    if inside == schema:
        return read
    # What the folders are named for comes from Delta's log: Spark misreads a name that is not ASCII.
    told = broadcast(session.createDataFrame(folders))
    return read.withColumn("qis file", col("_metadata.file_name")).join(told, "qis file").select(*schema.names)


def _answer(rows: Path, engine: Engine, query: Query) -> nw.LazyFrame[Any]:
    """What a query gives: DuckDB's is counted where it is made; Postgres's comes over as a table first."""
    if engine == "spark":
        raise EngineError(f"{rows}: engine spark does not run queries; --engine duckdb does")
    if query.database.startswith(("postgres://", "postgresql://")):
        if importlib.util.find_spec("adbc_driver_postgresql") is None:
            raise EngineError("Postgres needs a driver: pip install 'qis-connectors[postgres]'")
        table = pl.read_database_uri(query.query, query.database, engine="adbc")
        return _lazy(table.lazy() if engine == "polars" else duckdb.connect().from_arrow(table.to_arrow()))
    relation = duckdb.connect(str(rows), read_only=True).sql(query.query)
    return _lazy(relation if engine == "duckdb" else relation.pl(lazy=True))


@contextmanager
def readable(rows: Path, engine: Engine) -> Iterator[None]:
    """What the engine says of a table it cannot read, as EngineError in one line."""
    failures: tuple[type[Exception], ...] = (pl.exceptions.PolarsError, nw.exceptions.NarwhalsError, duckdb.Error)
    if importlib.util.find_spec("adbc_driver_manager") is not None:
        from adbc_driver_manager import Error  # optional: only where a query goes to Postgres

        failures = (*failures, Error)
    if engine == "spark" and spark_is_here() is None:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        failures = (*failures, PySparkException, Py4JError)
    try:
        yield
    except failures as error:
        lines = str(error).splitlines() or [type(error).__name__]
        # py4j says in its first line only which call failed; Java's own word comes after a colon.
        reason = next((line[2:] for line in lines if line.startswith(": ")), lines[0])
        raise EngineError(f"{rows} cannot be read as a table: {reason:.200}") from None


def _lazy(native: Any) -> nw.LazyFrame[Any]:  # noqa: ANN401 - a frame of whichever engine
    frame: nw.LazyFrame[Any] = nw.from_native(native)
    return frame


_POLARS: dict[str, Any] = {
    "parquet": pl.scan_parquet,
    "csv": partial(pl.scan_csv, try_parse_dates=True),
    "delta": pl.scan_delta,
}


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: while a JVM starts, PySpark would lose it and it would stay behind."""
    if current_thread() is not main_thread():
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(*pressed[0])


_ARROW_UNCHECKED = "-Darrow.enable_unsafe_memory_access=true -Darrow.enable_null_check_for_get=false"
"""Else Arrow in the JVM checks a buffer's bounds for each value: half of the JVM's time with packets."""

LOCAL = "local[2,4]"
"""Two cores; a task that fails is tried again, as on a cluster."""


@cache
def spark_session(master: str = LOCAL) -> "SparkSession":
    """One session for the whole process, silent on the terminal but for errors; the first caller's master is it."""
    with _ctrl_c_held_back():
        return _builder(master).getOrCreate()


@cache
def delta_session() -> "SparkSession":
    """The same with Delta, whose jar comes from Maven Central at first use and from the home folder's cache after that.

    EngineError, in one line, where that cannot be, or where the process has a session without Delta already.
    """
    if missing := spark_is_here():
        raise EngineError(f"engine spark: {missing}; --engine duckdb works without")
    if importlib.util.find_spec("delta") is None:
        raise EngineError("engine spark: delta-spark is not installed (pip install 'qis-connectors[spark]')")
    from delta import configure_spark_with_delta_pip
    from pyspark.errors import PySparkRuntimeError

    builder = _builder(LOCAL).config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    builder = builder.config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    builder = builder.config(
        "spark.databricks.delta.snapshotPartitions", "2"
    )  # a table's log in 50 tasks is for clusters
    try:
        with _ctrl_c_held_back(), _resolving_quietly():
            session = configure_spark_with_delta_pip(builder).getOrCreate()
    except PySparkRuntimeError:
        raise EngineError(
            "engine spark: the Delta jar is not here and Maven Central cannot be reached; --engine duckdb works without"
        ) from None
    if "delta" not in session.sparkContext.getConf().get("spark.sql.extensions", ""):
        raise EngineError("engine spark: this process has a Spark session without Delta already")
    return session


def _builder(master: str) -> "SparkSession.Builder":
    from pyspark.sql import SparkSession  # optional: only where the Spark engine is asked for

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # its workers need the Python that has this package
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # spark-submit has made the JVM: where it runs and how is its to say
        return SparkSession.builder
    quiet = Path(__file__).with_name("log4j2.properties")
    return (
        SparkSession.builder.master(master)
        .appName("qis")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={quiet.as_uri()} {_ARROW_UNCHECKED}")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
    )


@contextmanager
def _resolving_quietly() -> Iterator[None]:
    """Ivy tells the terminal all it tries, in dozens of lines; a process that is started in the block inherits that
    nobody listens.
    """
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
