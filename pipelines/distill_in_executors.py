"""Distillation of a Spark DataFrame: where rows of many sites lie in one cluster, each becomes packets there.

Executors count, and executors turn counts into packets: the driver sees neither rows nor counts. What comes of it goes
out with df.write.format("qis"), all at once, or with mapInArrow(depositing(url), RECEIPTS), each as it comes.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import narwhals as nw
import pyarrow as pa

from pipelines import ledger
from pipelines.counting import by_site, grouped
from pipelines.distill import release, signed
from pipelines.study import Study, StudyError
from qis_connectors.spark.executors import PACKETS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)


def distill_in_executors(study: Study, frame: "DataFrame", home: Callable[[str], Path]) -> "DataFrame":
    """A frame of packets (PACKETS) of all sites that the study's `site_column` names; what stays at home has no row.

    `home(site)` is the file beside which the site's salt, its ledger and, if the study names one, its key lie; it runs
    on the executors, which enter into the ledger what they release, sent or not. StudyError where the study has no
    `site_column` or the frame not the study's columns; the computation fails where it has not its values.
    """
    if study.site_column is None:
        raise StudyError("the study says no site_column: which rows are whose?")
    where = Path("the DataFrame")

    def packets(counted: pa.Table) -> pa.Table:
        ((site, groups),) = by_site(study, counted, where).items()
        done = release(study, str(site), home(str(site)), "spark", groups)
        ledger.record(home(str(site)), done.entries)
        if done.withheld:
            logger.warning("%s: %s", site, done.withheld)
        return signed(study, home(str(site)).parent, done.packets)

    counted: DataFrame = grouped(study, nw.from_native(frame).lazy(), where).to_native()
    return counted.groupBy(study.site_column).applyInArrow(packets, PACKETS)
