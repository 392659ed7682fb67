"""Packets held against the rows they say they are of: the site's salt opens its commitments, and nothing else does."""

from pathlib import Path

import pyarrow as pa

from pipelines.distill import releases
from pipelines.engine import Engine
from pipelines.study import AnyStudy, Study
from pipelines.study_fields import Gate, Linter


def audit(study: AnyStudy, folder: Path, packets: pa.Table, engine: Engine = "polars") -> pa.Table:
    """A row a packet of the study's address: node_id, training_phase, packet_id and `holds`: whether the rows and salt
    that are at the site today give its raw_data_hash."""
    if isinstance(study, Study) and study.noise:
        # The commitment is to the rows, whatever noise said of them and the gate of that.
        why = "an audit sends nothing"
        open_ = {"gate": Gate(min_cell=1, per_number=0, why=why), "linter": Linter(too_few="send", why=why)}
        study = study.model_copy(update={"noise": None, **open_})
    made = [release.packets for _, release in releases(study, folder, engine)]
    today = {(row["node_id"], row["raw_data_hash"]) for table in made for row in table.to_pylist()}
    rows = [
        {
            "node_id": row["node_id"],
            "training_phase": row["training_phase"],
            "packet_id": row.get("packet_id"),
            "holds": (row["node_id"], row["raw_data_hash"]) in today,
        }
        for row in packets.to_pylist()
        if (row["domain"], row["problem_type"]) == (study.domain, study.problem_type)
    ]
    kinds = [
        ("node_id", pa.string()),
        ("training_phase", pa.string()),
        ("packet_id", pa.string()),
        ("holds", pa.bool_()),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))
