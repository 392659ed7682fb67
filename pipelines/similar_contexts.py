"""The relation `similar_contexts` of sql/: who is similar to whom at each address, scored by the one formula."""

from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors.kernels import Rows, Scores
from qis_connectors.similarity import Definition, Definitions, context_of

MOST_SIMILAR = 1000
"""So many for each context, the most similar: an address with 100,000 contexts makes no more than 10^8 pairs."""

SCHEMA = pa.schema(
    [
        ("address", pa.string()),
        ("context", pa.string()),
        ("similar_to", pa.string()),
        ("score", pa.float64()),
        ("definition", pa.string()),
    ]
)
"""`similar_to` scores `score` with `context`, by the definition of the address's domain, named with its version. Pairs
below its threshold are left out, but each context is there with itself, with a score of 0 where it says nothing."""


def similar_contexts(contexts: pa.Table, definitions: Definitions) -> pa.Table:
    """The relation, for the distinct rows of `contexts`: address, context (JSON text)."""
    parts = [SCHEMA.empty_table()]
    for address in contexts["address"].unique().to_pylist():
        definition = definitions.of_domain(unquote(address.partition("/")[0]))
        if definition is not None:
            texts = contexts.filter(pc.equal(contexts["address"], address))["context"].combine_chunks()
            parts.append(_pairs(address, texts, definition))
    return pa.concat_tables(parts)


def _pairs(address: str, texts: pa.StringArray, definition: Definition) -> pa.Table:
    contexts = [context_of(text) for text in texts.to_pylist()]
    encoded = definition.encode(contexts)
    found = [
        _most_similar(definition.scores(own, encoded), definition.threshold, at) for at, own in enumerate(contexts)
    ]
    rows = np.concatenate([one for one, _ in found])
    own = np.repeat(np.arange(len(contexts)), [len(one) for one, _ in found])
    columns = [
        pa.repeat(pa.scalar(address), len(rows)),
        texts.take(pa.array(own)),
        texts.take(pa.array(rows)),
        pa.array(np.concatenate([scores for _, scores in found])),
        pa.repeat(pa.scalar(f"{definition.name} {definition.version}"), len(rows)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _most_similar(scores: Scores, threshold: float, own: int) -> tuple[Rows, Scores]:
    """The rows that are similar enough, and their scores; `own` is always among them."""
    scores[scores < threshold] = 0
    rows = np.flatnonzero(scores)
    if len(rows) > MOST_SIMILAR:
        rows = rows[np.argpartition(-scores[rows], MOST_SIMILAR)[:MOST_SIMILAR]]
    rows = np.union1d(rows, [own])
    return rows, scores[rows]
