"""Answers kept beside the packet table: only the addresses that new packets came to are computed again.

Each answer is one Parquet file that says, in its metadata, which table, version and SQL it rests on. Where any of that
cannot be followed (another table, files rewritten, SQL changed) it is computed from scratch: the rows are the same.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.answers import SqlEngineName, answers_over
from pipelines.files import write_parquet
from pipelines.synthesize import SIMILAR, answers, plan, shipped_definitions
from qis_connectors.delta import PacketTable
from qis_connectors.similarity import Definitions

_METADATA = b"qis"


@dataclass(frozen=True)
class _Basis:
    """What a kept answer rests on: the Delta table's id, its version, and the SHA-256 of all SQL that was run,
    with the similarity definitions where it reads scores."""

    table: str | None
    version: int | None
    sql: str


def kept_answers(
    table: Path,
    folder: Path,
    names: Sequence[str] | None = None,
    engine: SqlEngineName = "duckdb",
    definitions: Definitions | None = None,
) -> dict[str, pa.Table]:
    """The answers `names` (None: all) over the packet table at `table`, kept up to date as `folder`/NAME.parquet.

    The rows, and their order, are those of `answers_from`; it raises what that raises.
    """
    snapshot = PacketTable(table)
    definitions = definitions or shipped_definitions()
    kept: dict[str, pa.Table] = {}
    behind: dict[int | None, list[str]] = {}
    for name in answers() if names is None else names:
        version = _followed(folder / f"{name}.parquet", _basis(snapshot, name, definitions))
        if version is not None and version == snapshot.version:
            kept[name] = _read(folder / f"{name}.parquet")
        else:
            behind.setdefault(version, []).append(name)
    for version, late in behind.items():
        changed = None if version is None else snapshot.addresses_since(version)
        found = {} if changed == [] else answers_over(snapshot, late, engine, changed, definitions)
        for name in late:
            path = folder / f"{name}.parquet"
            if changed is None:
                kept[name] = found[name]
            else:
                kept[name] = _merged(_read(path), found[name], changed) if changed else _read(path)
            basis = json.dumps(asdict(_basis(snapshot, name, definitions))).encode()
            write_parquet(kept[name].replace_schema_metadata({_METADATA: basis}), path)
    return {name: kept[name] for name in (answers() if names is None else names)}


def _basis(snapshot: PacketTable, name: str, definitions: Definitions) -> _Basis:
    steps = plan(name)
    texts = [step.text for step in steps]
    if any(SIMILAR in step.inputs for step in steps):
        texts += [one.model_dump_json() for one in definitions.by_name.values()]
    return _Basis(snapshot.id, snapshot.version, digest(texts))


def digest(texts: Iterable[str]) -> str:
    """SHA-256 of texts, each after its length."""
    found = hashlib.sha256()
    for text in texts:
        found.update(f"{len(text)}:{text}".encode())
    return found.hexdigest()


def _followed(path: Path, now: _Basis) -> int | None:
    """The version that the answer kept at `path` rests on; None where there is none to go on from."""
    if not path.exists():
        return None
    said = pq.read_schema(path).metadata or {}
    if _METADATA not in said:
        return None
    then = _Basis(**json.loads(said[_METADATA]))
    same = (then.table, then.sql) == (now.table, now.sql)
    return then.version if same and (then.version or 0) <= (now.version or 0) else None


def _read(path: Path) -> pa.Table:
    return pq.read_table(path).replace_schema_metadata(None)


def _merged(before: pa.Table, new: pa.Table, changed: Sequence[str]) -> pa.Table:
    """The rows of `before` at other addresses and those of `new`, in the order that all of them had in one run."""
    rest = before.filter(pc.invert(pc.is_in(before["address"], pa.array(changed, pa.string()))))
    rows = pa.concat_tables([rest, new.cast(before.schema)])
    place = rows.append_column("place", pa.array(np.arange(rows.num_rows))).select(["address", "place"])
    return rows.take(pc.sort_indices(place, [("address", "ascending"), ("place", "ascending")]))
