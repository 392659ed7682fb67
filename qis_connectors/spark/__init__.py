"""Packets as a Spark format: spark.read.format("qis"), df.write.format("qis"), and the same as streams."""

from pyspark.sql import SparkSession

from qis_connectors.spark.source import PacketSource

__all__ = ["PacketSource", "register"]


def register(spark: SparkSession) -> None:
    """Make format("qis") known to this session, be it local, on a cluster or over Spark Connect.

    This package is needed wherever the session's Python workers run. source.py lists the options.
    """
    spark.dataSource.register(PacketSource)
    # Without it Spark refuses a source that could take conditions over; ours does where the option `pushdown` says so.
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
