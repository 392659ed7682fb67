"""Which packets of a batch a reader wants: those its filter keeps and, where it asks for such, the similar ones."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qis_connectors import filters
from qis_connectors.filters import Filter
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.request import SIMILARITY

Scorer = Callable[[pa.RecordBatch], NDArray[np.float64]]
"""For packets with their contexts, and with their cursors where these come from the store, their scores; NaN where one
is not similar enough."""


def needed(columns: Sequence[str], where: Filter | None, scorer: Scorer | None) -> list[str]:
    """What has to be read for `kept` to be asked and `columns` to be handed out."""
    if where is not None:
        return list(OUTCOME_PACKET_SCHEMA.names)
    if scorer is None:
        return list(columns)
    return list(dict.fromkeys([*(name for name in columns if name != SIMILARITY.name), "context"]))


def kept(batch: pa.RecordBatch, where: Filter | None, scorer: Scorer | None) -> pa.RecordBatch:
    """The packets that are wanted, with a column of their scores behind the others where a scorer is given."""
    if where is not None:
        batch = batch.filter(filters.keep(where, batch))
    if scorer is not None:
        scores = scorer(batch)
        batch = batch.append_column(SIMILARITY, pa.array(scores, SIMILARITY.type)).filter(pa.array(~np.isnan(scores)))
    return batch
