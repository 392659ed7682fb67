"""What is looked at before packets leave a site, and after they have come together. Counts only, never a value."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import narwhals as nw
import pyarrow as pa

from pipelines.counting import in_periods
from pipelines.distill import ARCHITECTURE, phase
from pipelines.engine import scan
from pipelines.study import Study
from pipelines.study_fields import Binary, TimeToEvent
from qis_connectors.client import RouterClient
from qis_connectors.delta import PacketTable
from qis_connectors.errors import QisError
from qis_connectors.packet import MAX_BYTES, MAX_BYTES_WITH_LIKELIHOOD, wire_bytes

SHORTEST_TELLING_TEXT = 3
"""Shorter texts are in a packet by chance."""
_OWN_TEXTS = ("raw_data_hash", "packet_id", "signature")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for: in how many places, and in how many of them it is wrong."""

    looked_for: str
    places: int
    wrong: int


class StoppedError(QisError):
    """Something was found in a site's packets for which they must not leave it."""


def refuse(study: Study, site: str, rows: Path, packets: pa.Table) -> None:
    """StoppedError where gate, leaks or size stop the packets; what it says holds counts, and no value."""
    for finding in (*gate(study, rows, packets), *leaks(study, site, rows, packets), *sizes(packets)):
        if finding.wrong:
            raise StoppedError(f"{site} may not send this: {finding.looked_for}: {finding.wrong} of {finding.places}")


def sizes(packets: pa.Table) -> list[Finding]:
    """Packets over the limit of the wire."""
    columns = packets.to_pydict()
    limits = [MAX_BYTES_WITH_LIKELIHOOD if items else MAX_BYTES for items in columns["likelihood"]]
    over = sum(size > limit for size, limit in zip(wire_bytes(columns), limits, strict=True))
    return [
        Finding(f"packet over {MAX_BYTES} bytes ({MAX_BYTES_WITH_LIKELIHOOD} with a likelihood)", len(limits), over)
    ]


def gate(study: Study, rows: Path, packets: pa.Table) -> list[Finding]:
    """Small cells behind a packet, counted once more from the rows, in another way than the distillation counts.

    Each packet against the rows of its own site, strata and period; places of a hierarchy that were merged are one.
    """
    arm, outcome = nw.col(study.arms.column), nw.col(study.outcome.column)
    if isinstance(study.outcome, Binary | TimeToEvent):
        conditions = [outcome == study.outcome.event, outcome != study.outcome.event]
    else:
        conditions = [~outcome.is_null()]
    cells = [(arm == value) & one for value in (study.arms.treated, study.arms.control) for one in conditions]
    sent = {_cohort(study, packet) for packet in packets.to_pylist()}
    time = str(study.time) if study.period else None
    keys = filter(None, (study.site_column, *study.strata, time))
    frame = scan(rows, "polars")
    if time:
        frame = in_periods(frame, study, dict(frame.collect_schema()), rows)
    counted = frame.with_columns(nw.lit(0).alias("qis all")).group_by("qis all", *keys)
    table = counted.agg(cell.sum().alias(f"qis {at}") for at, cell in enumerate(cells)).collect()
    small = 0
    for row in table.iter_rows(named=True):
        here = tuple(row[name] for name in study.strata), phase(study, row[time] if time else None)
        if ((str(row[study.site_column]) if study.site_column else None), *here) in sent:
            small += sum(0 < (row[f"qis {at}"] or 0) < study.gate.min_cell for at in range(len(cells)))
    if study.noise:
        small = 0  # noise hides how many there are: stopping a packet for that would tell
    return [Finding(f"cell of 1 to {study.gate.min_cell - 1} behind a packet", len(sent) * len(cells), small)]


def _cohort(study: Study, packet: dict[str, Any]) -> tuple[str | None, tuple[Any, ...], str]:
    """Site, where the table has many, strata and period of the rows behind a packet."""
    context = json.loads(packet["context"] or "{}")
    strata = tuple(context.get(name) for name in study.strata)
    return packet["node_id"] if study.site_column else None, strata, packet["training_phase"]


def leaks(study: Study, site: str, rows: Path, packets: pa.Table) -> list[Finding]:
    """Columns of the site's table that the study does not send: their names, and their values, in the packets.

    A text of the packets counts as a value where the study file does not have it and it is not the site's own name.
    """
    frame = scan(rows, "polars")
    stays = [name for name in frame.collect_schema().names() if name not in (*study.context, study.time)]
    names, texts = set(packets.column_names), {site}
    for packet in packets.to_pylist():
        for name, value in packet.items():
            if name in ("context", "intervention_params"):
                content = json.loads(value or "{}")
                names |= set(content)
                texts |= {text for key, one in content.items() if key not in study.context for text in _texts(one)}
            elif isinstance(value, str) and name not in _OWN_TEXTS:
                texts.add(value)
    texts -= {site, ARCHITECTURE, *_texts(study.model_dump())}
    telling = sorted(text for text in texts if len(text) >= SHORTEST_TELLING_TEXT)
    named = sum(name in names for name in stays)
    held = [nw.col(name).cast(nw.String).is_in(telling).any().alias(name) for name in stays]
    found = sum(map(bool, frame.select(*held).collect().row(0))) if telling and held else 0
    return [
        Finding("column that stays, named in a packet", len(stays), named),
        Finding("column that stays, with a value in a packet", len(stays), found),
    ]


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever JSON or YAML holds
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif value is not None:
        yield str(value)


def each_once(table: Path) -> list[Finding]:
    """Packets that a packet table has more than once."""
    with duckdb.connect() as connection:
        packets = PacketTable(table).relation(connection)
        (counts,) = packets.aggregate("count(*), count(DISTINCT (address, packet_id))").fetchall()
    return [Finding("packet that is there before", counts[0], counts[0] - counts[1])]


def arrived(table: Path, sent: pa.ChunkedArray) -> list[Finding]:
    """Packets, by packet_id, that sites have staged and a packet table has not."""
    there = _packet_ids(table)
    return [
        Finding("staged packet that is not in the table", len(sent), sum(one not in there for one in sent.to_pylist()))
    ]


def fresh(table: Path, router: str, address: str, identity: Path | str | None = None) -> list[Finding]:
    """Packets at the router that a packet table has not yet."""
    there = _packet_ids(table)
    with RouterClient(router, identity) as client:
        at_router = client.read(address, columns=["packet_id"]).table["packet_id"].to_pylist()
    return [
        Finding(
            "packet at the router that is not in the table", len(at_router), sum(one not in there for one in at_router)
        )
    ]


def _packet_ids(table: Path) -> set[str]:
    with duckdb.connect() as connection:
        return {one for (one,) in PacketTable(table).relation(connection).select("packet_id").fetchall()}
