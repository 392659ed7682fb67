"""Packets of every value that a field may have."""

import numpy as np
import pyarrow as pa

from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

ROWS = 400_000
TEXTS = ["", "a", "twelve bytes", "thirteen byte", "é", "日本語の治験", "🜁🜂🜃🜄", "quote ' and \" and \\", "\x7f\t\n"]


def any_packets(rows, seed=7):
    """Complete but for the id: NULLs in every field of ours, unicode, the least and the greatest of every type."""
    random = np.random.default_rng(seed)

    def pick(values, kind):
        return pa.array(values, kind).take(pa.array(random.integers(0, len(values), rows)))

    extremes = [np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e-45, -0.0, 0.1, -1.5]
    columns = {
        name: pa.array(np.full(rows, "x")) if kind == pa.string() else pa.nulls(rows, kind)
        for name, kind in zip(OUTCOME_PACKET_SCHEMA.names, OUTCOME_PACKET_SCHEMA.types, strict=True)
    } | {
        "node_id": pick(["n", *(f"{text}n" for text in TEXTS)], pa.string()),
        "timestamp_utc": pa.array(random.permutation(rows) - rows // 2),
        "domain": pick(["a.b", "a.ü", "c"], pa.string()),
        "problem_type": pick(["p", "q r/s"], pa.string()),
        "model_architecture": pick(TEXTS, pa.string()),
        "training_phase": pick(TEXTS, pa.string()),
        "metric_delta": pick(extremes, pa.float32()),
        "metric_value": pa.array(random.normal(size=rows).astype(np.float32)),
        "confidence": pick([0, 1, 0.5, 1e-45], pa.float32()),
        "intervention_params": pick(["{}", '{"δ": [1, null]}'], pa.string()),
        "outcome_decile": pick([1, 10, 5], pa.int8()),
        "sample_count": pick([1, 2**31 - 1, 262, *range(100, 1100)], pa.int32()),
        "raw_data_hash": pick(TEXTS, pa.string()),
        "packet_id": pa.nulls(rows, pa.string()),
        "metric_stderr": pick([None, 1e-45, 3.0], pa.float32()),
        "context": pick([None, "{}", '{"latitude": 44}'], pa.string()),
        "likelihood": pick([None, [], [0.5], [-1.0] * 8], pa.list_(pa.float32())),
        "sequence": pick([None, -(2**63), 2**63 - 1, 0], pa.int64()),
        "signature": pick([None, b"", b"\x00\xff", bytes(range(64))], pa.binary()),
        "key_id": pick([None, "", "k"], pa.string()),
    }
    return pa.Table.from_arrays([columns[name] for name in OUTCOME_PACKET_SCHEMA.names], schema=OUTCOME_PACKET_SCHEMA)
