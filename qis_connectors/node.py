"""A node: one site's voice at one address of the network."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qis_connectors import address as addresses
from qis_connectors import packet
from qis_connectors.client import Receipt, RouterClient
from qis_connectors.errors import QisError
from qis_connectors.outcome import compact_json, confidence, deciles
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.request import similar
from qis_connectors.signing import sign

REQUIRED = ("metric_name", "metric_delta", "metric_value", "sample_count", "intervention_type")
_OURS = ("node_id", "domain", "problem_type", "packet_id", "sequence", "signature", "key_id")
_DEFAULTS = {"model_architecture": "", "training_phase": "", "intervention_params": "{}", "raw_data_hash": ""}
_JSON_FIELDS = ("intervention_params", "context")


@dataclass
class _History:
    """What this node has deposited at its address so far: outcomes by metric, and the next sequence number."""

    outcomes: dict[str, list[float]] = field(default_factory=dict)
    next_sequence: int = 1

    def add(self, metric_name: str, metric_delta: float, sequence: int | None) -> None:
        self.outcomes.setdefault(metric_name, []).append(metric_delta)
        self.next_sequence = max(self.next_sequence, (sequence or 0) + 1)


class Node:
    """Deposits under one node_id at domain/problem_type and reads what others have found there.

        with Node("site-a", "grpc://127.0.0.1:8815", domain="imaging.chest_ct", problem_type="nodule_risk") as node:
            node.deposit(metric_name="val_auc", metric_delta=0.012, metric_value=0.87, metric_stderr=0.004,
                         sample_count=5000, intervention_type="learning_rate_schedule",
                         intervention_params={"warmup": 500})
            others = node.query()

    Every method raises QisError, in one line, where the router cannot be reached or refuses. One node_id is one Node
    in one process: it numbers its packets. At a router of a network `identity` is the folder of its bundle, whose name
    is the node_id; QIS_IDENTITY names it where it is not given. Not for sharing between threads.

    With `key`, the file of the node's secret key (`qis key`), every packet is signed: see signing.py.
    """

    def __init__(
        self,
        node_id: str,
        router: str,
        *,
        domain: str,
        problem_type: str,
        identity: Path | str | None = None,
        key: Path | None = None,
    ) -> None:
        self.node_id = node_id
        self.address = addresses.of(domain, problem_type)
        self._problem = {"node_id": node_id, "domain": domain, "problem_type": problem_type}
        self._key = key
        self._client = RouterClient(router, identity)
        self._past: _History | None = None
        self._seen = 0
        self._context: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def deposit(self, packets: pa.Table | pa.RecordBatch | None = None, /, **fields: Any) -> Receipt:  # noqa: ANN401
        """One packet from its fields, or a table of this node's packets; returns once they are on the router's disk.

        metric_name, metric_delta, metric_value, sample_count and intervention_type must be given. Of the rest:
        confidence is 1 - two-sided p of metric_delta / metric_stderr; outcome_decile (1..10) is where metric_delta
        stands among this node's own for the metric so far, larger being better (where smaller is better, give it);
        timestamp_utc is now, in ms; intervention_params and context are dicts; the other texts are empty.
        A table is sent as it is, at the addresses its rows name, numbered if it has no sequence; signed, with a key.

        Raises PacketError, naming the field, where a packet is not valid; then nothing is sent.
        """
        if packets is None:
            return self._deposit_one(fields)
        if fields:
            raise PacketError(min(fields), "is given beside a table of packets")
        return self._deposit_table(packets)

    def query(
        self,
        address: str | None = None,
        since: int | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
        filters: object = None,
        similar_to: dict[str, Any] | None = None,
        threshold: float | None = None,
        definition: str | None = None,
    ) -> pa.Table:
        """Packets at an address, prefix or glob (this node's own address by default), in the order they were stored.

        All fields of OUTCOME_PACKET_SCHEMA or the `columns` asked for; only those stored after the cursor `since`
        (a Receipt has one); at most `limit`. `filters`, a condition such as ["sample_count", ">=", 100] or
        {"and": [...]}, is applied by the router: filters.py has the grammar.

        `similar_to`, a context such as {"latitude": 44}: only packets whose context scores at least `threshold` with it
        by the similarity `definition` of that name (by default the definition of the address's domain, and its
        threshold), with the score, 0..1, in one more column `similarity`.
        """
        asked = similar(similar_to, threshold, definition)
        return self._client.read(address or self.address, since, columns, limit, filters, asked).table

    def register(
        self,
        context: dict[str, Any],
        threshold: float | None = None,
        address: str | None = None,
        definition: str | None = None,
    ) -> str:
        """An interest profile, which the router keeps across its restarts: `watch(profile=...)` then follows other
        nodes' packets at the address, prefix or glob (this node's address by default) that are similar to `context`.

        From now on this node's own packets carry `context` where they are given none, so that they reach the nodes
        whose profiles they match. Registering the same again gives the same id. Raises QisError, saying why, where the
        profile would match everything, or could match nothing.
        """
        profile = self._client.register_profile(self.node_id, address or self.address, context, threshold, definition)
        self._context = context
        return profile

    def watch(
        self,
        address: str | None = None,
        since: int | None = None,
        filters: object = None,
        profile: str | None = None,
    ) -> Generator[pa.Table, None, None]:
        """What `query` gives, then what arrives, as it arrives: one or more packets a table, each packet once.
        With a `profile` that `register` gave: other nodes' packets that match it.

        Without an end: leave the loop or close the iterator. It comes back by itself after the router was away.
        """
        where = address if profile else address or self.address
        with closing(self._client.watch(where, since, filters=filters, profile=profile)) as news:
            for packets in news:
                yield packets.table

    def synthesize(self, name: str = "pooled") -> pa.Table:
        """The answer `name` of sql/ over all packets at this node's address: pooled, leave_one_out, robust, ..."""
        installed = entry_points(group="qis_connectors.synthesis")
        if len(installed) != 1:
            raise QisError(f"synthesize needs one installed package that offers it; there are {len(installed)}")
        (entry,) = installed
        answer: pa.Table = entry.load()(self.query(), name)
        return answer

    def step(self, **fields: Any) -> pa.Table:  # noqa: ANN401
        """Deposit this epoch's outcome (as `deposit` does) and return what the other nodes at this address have stored
        since the previous step; at the first step, all they have stored so far."""
        self._deposit_one(fields)
        news = self._client.read(self.address, self._seen)
        self._seen = news.cursor
        return news.table.filter(pc.not_equal(news.table["node_id"], self.node_id))

    def _deposit_one(self, fields: dict[str, Any]) -> Receipt:
        row = _values({"context": self._context, **fields})
        past = self._history()
        outcomes = past.outcomes.get(row["metric_name"], [])
        row.setdefault("timestamp_utc", time.time_ns() // 1_000_000)
        row.setdefault("confidence", _confidence(row))
        row.setdefault("outcome_decile", deciles([*outcomes, row["metric_delta"]])[-1])
        row |= {**self._problem, "sequence": past.next_sequence}
        packets = pa.Table.from_pylist([row], schema=OUTCOME_PACKET_SCHEMA)
        if self._key:
            packets = sign(packets, self._key)
            row["sequence"] = packets["sequence"][0].as_py()
        receipt = self._client.deposit(packets)
        if receipt.stored:
            past.add(row["metric_name"], row["metric_delta"], row["sequence"])
        return receipt

    def _deposit_table(self, packets: pa.Table | pa.RecordBatch) -> Receipt:
        whole = packets if isinstance(packets, pa.Table) else pa.Table.from_batches([packets])
        whole = packet.conform(whole)
        for row, node_id in enumerate(whole["node_id"].to_pylist()):
            if node_id != self.node_id:
                raise PacketError("node_id", f"{node_id!r:.60} is not this node, {self.node_id!r:.60}", row)
        if self._key:
            whole = sign(whole, self._key)
        elif "sequence" not in whole.column_names:
            first = self._history().next_sequence
            numbers = pa.array(np.arange(first, first + whole.num_rows, dtype=np.int64))
            whole = packet.conform(whole.append_column("sequence", numbers))
        self._past = None  # the next single packet reads the history anew
        return self._client.deposit(whole)

    def _history(self) -> _History:
        if self._past is None:
            columns = ["node_id", "metric_name", "metric_delta", "sequence"]
            everybody = self.query(columns=columns)
            self._past = _History()
            for row in everybody.filter(pc.equal(everybody["node_id"], self.node_id)).to_pylist():
                self._past.add(row["metric_name"], row["metric_delta"], row["sequence"])
        return self._past


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are given, with plain defaults, as their types hold them; PacketError where one cannot be."""
    for name in fields:
        if name not in OUTCOME_PACKET_SCHEMA.names:
            raise PacketError(name, "is not a field of a packet")
        if name in _OURS:
            raise PacketError(name, "is the node's to set")
    for name in REQUIRED:
        if fields.get(name) is None:
            raise PacketError(name, "is missing")
    if fields.get("confidence") is None and fields.get("metric_stderr") is None:
        raise PacketError("confidence", "is missing, and there is no metric_stderr to compute it from")
    given = {**_DEFAULTS, **{name: value for name, value in fields.items() if value is not None}}
    return {name: _value(name, value) for name, value in given.items()}


def _value(name: str, value: object) -> Any:  # noqa: ANN401
    kind = OUTCOME_PACKET_SCHEMA.field(name).type
    try:
        if name in _JSON_FIELDS and isinstance(value, dict):
            value = compact_json(value)
        if isinstance(value, str) != (kind == pa.string()):
            raise TypeError(f"it is a {type(value).__name__}")
        # Through the type the value has by itself: building int32 from 1.5 would cut it, the cast refuses.
        return pa.array([value]).cast(kind)[0].as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise PacketError(name, f"{value!r:.60} does not fit {kind} ({str(error).splitlines()[0]:.100})") from None


def _confidence(row: dict[str, Any]) -> float:
    """1 - two-sided p. A standard error that is none is refused as such, so any value will do here."""
    stderr = row.get("metric_stderr", 0.0)
    return confidence(row["metric_delta"], stderr) if stderr > 0 else 0.0
