"""Distillation of a Spark DataFrame: where rows of many sites lie in one cluster, each becomes a packet there.

Executors count, and executors turn counts into packets: the driver sees neither rows nor counts. What comes of it goes
out with df.write.format("qis"), all at once, or with mapInArrow(depositing(url), RECEIPTS), each as it comes.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.distill import MAX_DISTINCT_ROWS, release
from pipelines.study import Study, StudyError
from qis_connectors.spark.executors import PACKETS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)


def distill_in_executors(study: Study, frame: "DataFrame", site: str, salt: Callable[[str], bytes]) -> "DataFrame":
    """A frame of packets (PACKETS), one for each value of the column `site`; a site that may send none has no row.

    `salt` gives a site's secret salt and runs on the executors, such as lambda site: salt_of(folder / site / "rows").
    StudyError where the frame has not the study's columns; the computation fails where it has not its values.
    """
    for column in (site, *study.columns):
        if column not in frame.columns:
            raise StudyError(f"there is no column {column!r}; there are {', '.join(frame.columns[:20])}")

    def packets(counted: pa.Table) -> pa.Table:
        name = counted.column(0)[0].as_py()
        if counted.num_rows > MAX_DISTINCT_ROWS:
            raise StudyError(f"{name}: over {MAX_DISTINCT_ROWS} distinct rows; is {study.outcome.column!r} binary?")
        *keys, sizes = (column.to_pylist() for column in counted.columns[1:])
        of_site = dict(zip(zip(*keys, strict=True), sizes, strict=True))
        done = release(study, name, of_site, str(name), lambda: salt(name), "spark")
        if done.withheld:
            logger.warning("%s: no packet leaves: %s", name, done.withheld)
        return done.packets

    counted = frame.groupBy(site, *study.columns).agg({"*": "count"})
    return counted.groupBy(site).applyInArrow(packets, PACKETS)
