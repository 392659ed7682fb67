"""Packets held against the rows they say they are of: the site's salt opens its commitments, and nothing else does.

At the site `audit` does that with the rows themselves. For an auditor elsewhere the site writes an opening: of each
packet the salt and the rows behind it, which `check` holds against the packet. It shows the rows, as counts of equal
ones, and the salt: who has it can try guesses against the site's other commitments.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from pipelines.commitment import commitment, opening
from pipelines.distill import releases
from pipelines.engine import Engine
from pipelines.study import AnyStudy, Study
from pipelines.study_fields import Gate, Linter
from qis_connectors.errors import QisError


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
    return pa.Table.from_pylist(rows, schema=_HOLDS)


def write_opening(study: AnyStudy, folder: Path, packets: pa.Table, engine: Engine, out: Path) -> int:
    """Open the commitments of these packets into a new file, readable by its owner only; how many of them the rows and
    salt of today open. OSError where the file cannot be made or is there."""
    wanted = set(packets["raw_data_hash"].to_pylist())
    with opening() as found:
        for _ in releases(study, folder, engine):
            pass
    opened = {committed: asdict(one) for committed, one in found.items() if committed in wanted}
    if opened:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(opened, file, ensure_ascii=False, indent=1)
    return len(opened)


def check(path: Path, packets: pa.Table) -> pa.Table:
    """A row a packet, as `audit` gives them: `holds` says whether what the opening shows of it gives its raw_data_hash,
    NULL where it shows nothing. QisError where the file is no opening."""
    try:
        shown = json.loads(path.read_text(encoding="utf-8"))
        given = {committed: commitment(one["rows"], bytes.fromhex(one["salt"])) for committed, one in shown.items()}
    except OSError as error:
        raise QisError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise QisError(f"{path}: is no opening of commitments") from None
    rows = [
        {
            "node_id": row["node_id"],
            "training_phase": row["training_phase"],
            "packet_id": row["packet_id"],
            "holds": given[row["raw_data_hash"]] == row["raw_data_hash"] if row["raw_data_hash"] in given else None,
        }
        for row in packets.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=_HOLDS)


_HOLDS = pa.schema(
    [("node_id", pa.string()), ("training_phase", pa.string()), ("packet_id", pa.string()), ("holds", pa.bool_())]
)
