"""Which deposits may be stored: small ones are checked together, for one row costs almost what a hundred do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import pyarrow as pa

from qis_connectors import chain, packet
from qis_connectors.chain import Place
from qis_connectors.errors import QisError
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA, PacketError
from qis_connectors.receipt import Receipt
from qis_connectors.router.packet_log.chains import Chains

Problem = tuple[str | None, ...]
"""The domain and problem type that packets must have, and the node_id where there is one; None: any."""


class Stream(Protocol):
    """What a deposit came in. Nothing is stored behind a batch of it that was refused."""

    failure: QisError | None


Check = Callable[[pa.RecordBatch], Sequence[Place]]
"""Where complete packets stand in their nodes' chains; PacketError on the first whose signature does not hold."""


@dataclass(frozen=True)
class Deposit:
    """`problem` is what check_problem is to look for, None where the packets are complete and checked; then `places`
    may be known already.

    Until they are checked no kernel may touch them: their buffers may contradict each other.
    """

    address: str
    packets: pa.RecordBatch
    size: int
    done: Callable[[Receipt | QisError], None]
    problem: Problem | None = None
    stream: Stream | None = None
    places: Sequence[Place | None] | None = None


def admit(
    group: Sequence[Deposit], chains: Chains, check: Check | None = None
) -> tuple[pa.RecordBatch, list[bytes], list[QisError | None]]:
    """The packets of those that may be stored, complete and in order, their signatures looked at by a `check`; what the
    chains remember of each packet; and of each deposit why it may not be stored.
    """
    if not any(deposit.stream and deposit.stream.failure for deposit in group):
        try:
            packets, places = _complete(group, check)
            return packets, chains.ids(packets, places), [None] * len(group)
        except PacketError:
            pass  # whose it is shows when each is looked at by itself
    batches: list[pa.RecordBatch] = []
    ids: list[bytes] = []
    refusals: list[QisError | None] = []
    failed: dict[int, QisError] = {}
    for deposit in group:
        stream = id(deposit.stream or deposit)
        refusal = failed.get(stream) or (deposit.stream.failure if deposit.stream else None)
        if refusal is None:
            try:
                packets, places = _complete([deposit], check)
                ids += chains.ids(packets, places)
                batches.append(packets)
            except PacketError as error:
                refusal = failed[stream] = error
        refusals.append(refusal)
    return _concatenated([*batches, _NOTHING]), ids, refusals


def check_problem(packets: pa.RecordBatch, problem: Problem) -> None:
    """PacketError where a packet does not belong to its address, or to whoever deposits it."""
    for (field, whose), wanted in zip(_WHOSE.items(), problem, strict=False):
        values = [] if wanted is None else packets[field].to_pylist()
        for value in set(values) - {wanted}:
            reason = f"{value!r:.60} is not the {wanted!r:.60} of the {whose}"
            raise PacketError(field, reason, values.index(value))


def _complete(deposits: Sequence[Deposit], check: Check | None) -> tuple[pa.RecordBatch, list[Place | None]]:
    batches = []
    places: list[Place | None] = []
    for _, alike in groupby(deposits, _kind):
        run = list(alike)
        if run[0].problem is not None:
            # All at once: every call into Arrow lets go of the interpreter, and dozens of threads wait for it.
            packet.validate(pa.Table.from_batches([deposit.packets for deposit in run]))
        whole = _concatenated([deposit.packets for deposit in run])
        if run[0].problem is not None:
            whole = packet.complete_validated(whole)
            _check_problems(run, whole)
        if check is None:
            places += chain.places(whole)
        elif run[0].places is None:
            places += check(whole)
        else:
            places += [place for deposit in run for place in deposit.places or ()]
        batches.append(whole)
    return _concatenated(batches), places


def _kind(deposit: Deposit) -> tuple[bool, bool, int]:
    """What is alike is checked at once."""
    return deposit.problem is None, deposit.places is None, len(deposit.packets.schema)


def _check_problems(deposits: Sequence[Deposit], packets: pa.RecordBatch) -> None:
    at = 0
    for problem, alike in groupby(deposits, lambda deposit: deposit.problem):
        assert problem is not None
        rows = sum(deposit.packets.num_rows for deposit in alike)
        check_problem(packets.slice(at, rows), problem)
        at += rows


def _concatenated(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


_WHOSE = {
    "domain": "address it is deposited at",
    "problem_type": "address it is deposited at",
    "node_id": "certificate it is deposited under",
}
_NOTHING = pa.RecordBatch.from_pylist([], schema=OUTCOME_PACKET_SCHEMA)
