"""The packet table written by Spark with delta-spark: the table of delta.py, as large as a cluster can make it.

A MERGE appends what the table has not, and notes the router's store and cursor in the same commit, as a Delta
transaction of the same name as delta.py's: writers of both kinds see each other.
"""

from pathlib import Path

from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from qis_connectors.client import RouterClient
from qis_connectors.delta import PACKET_TABLE_SCHEMA, PacketTable, WriteConflictError
from qis_connectors.spark.executors import reading

_TRANSACTION = "spark.databricks.delta.write.txnAppId"
_VERSION = "spark.databricks.delta.write.txnVersion"
_SAME = " AND ".join(f"known.{name} = new.{name}" for name in ("domain", "address", "packet_id"))


def append_new(spark: SparkSession, client: RouterClient, path: Path, pattern: str) -> None:
    """Append what the router has at `pattern` and the table at `path` has not, in one commit; makes the table.

    Raises WriteConflictError, having written nothing, where another writer came first.
    """
    source = f"{client.store}:{pattern}"
    table = PacketTable(path, create=True)
    if table.version is None:
        table.append(PACKET_TABLE_SCHEMA.empty_table(), source, 0)
    since, reached = table.cursor(source) or 0, client.head()
    if reached <= since:
        return
    spark.conf.set(_TRANSACTION, source)
    spark.conf.set(_VERSION, str(reached))
    try:
        known = DeltaTable.forPath(spark, str(path)).alias("known")
        new = _packets(spark, client, pattern, since, reached).alias("new")
        known.merge(new, _SAME).whenNotMatchedInsertAll().execute()
    except DeltaConcurrentModificationException as error:
        raise WriteConflictError(f"packet table {path} was written by somebody else just now") from error
    finally:
        spark.conf.unset(_TRANSACTION)
        spark.conf.unset(_VERSION)


def _packets(spark: SparkSession, client: RouterClient, pattern: str, since: int, until: int) -> DataFrame:
    """PACKET_TABLE_SCHEMA: each packet with the address it lies at, which may be deeper than its own fields say."""
    tickets = [
        (address, ticket)
        for address in client.addresses(pattern)["address"].to_pylist()
        for ticket in client.endpoints(address, since=since, until=until)
    ]
    rows = spark.createDataFrame(tickets, "address string, ticket binary")
    tasks = rows.repartition(max(1, min(len(tickets), 4 * spark.sparkContext.defaultParallelism)))
    return tasks.mapInArrow(reading(client.url, client.identity, client.store), from_arrow_schema(PACKET_TABLE_SCHEMA))
