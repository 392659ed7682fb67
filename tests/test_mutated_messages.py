"""Arrow messages with bytes changed on their way to the router: it serves on, and stores nothing that is not a packet.

Sent by a plain gRPC client, which like an attacker knows no Arrow and checks nothing.
"""

import random
import struct
from concurrent.futures import ThreadPoolExecutor

import grpc
import pyarrow as pa
import pytest
from signed_packets import make_site

from qis_connectors import packet
from qis_connectors.client import RouterClient
from qis_connectors.packet import INTERCHANGE_SCHEMA, OUTCOME_PACKET_SCHEMA
from qis_connectors.signing import sign

PATH = [b"clinical.tuberculosis/bcg_vaccine"]


def varint(value):
    low, high = value & 127, value >> 7
    return bytes([low]) if not high else bytes([low | 128]) + varint(high)


def field(number, payload):
    """A protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def flight_data(message, descriptor=b""):
    """An encapsulated Arrow message as Flight sends it: metadata and body are fields of their own."""
    marker, length = struct.unpack_from("<Ii", message)
    assert marker == 0xFFFFFFFF
    header, body = message[8 : 8 + length], message[8 + length :]
    return (field(1, descriptor) if descriptor else b"") + field(2, header) + field(1000, body)


def descriptor():
    return b"\x08\x01" + b"".join(field(3, part) for part in PATH)


class Mutations:
    """Changes of a few bytes: bits flipped, numbers that sit on an edge, bytes dropped, repeated or moved."""

    EDGES = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00", b"\x00" * 8)

    def __init__(self, seed):
        self._random = random.Random(seed)

    def __call__(self, message):
        changed = bytearray(message)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            at = self._random.randrange(len(changed))
            kind = self._random.randrange(5)
            if kind < 2:
                changed[at] ^= 1 << self._random.randrange(8)
            elif kind == 2:
                edge = self._random.choice(self.EDGES)
                changed[at : at + len(edge)] = edge
            elif kind == 3:
                del changed[at : at + self._random.randrange(1, 9)]
            else:
                changed[at:at] = changed[at : at + self._random.randrange(1, 65)]
        return bytes(changed)


def batches(packets):
    """What is mutated: fifteen fields and all of them, one row and a hundred, with NULLs and without."""
    full = packet.complete(packets(3, context='{"latitude":44}').to_batches()[0]).to_pylist()
    for at, row in enumerate(full):
        row |= {"metric_stderr": 0.1, "likelihood": [0.1, 0.2], "signature": b"\x00\x01", "key_id": "k", "sequence": at}
        row |= {"packet_id": None}
    whole = pa.RecordBatch.from_pylist(full, schema=OUTCOME_PACKET_SCHEMA)
    return [*packets(1).to_batches(), *packets(100).to_batches(), packet.complete(whole)]


def refusal_of(put, messages):
    try:
        list(put(iter(messages), timeout=20))
    except grpc.RpcError as error:
        return error
    return None


def flood(url, batches, number, seed):
    """Send so many mutated messages, each on a stream of its own; how many were taken, how many refused."""
    mutate, choose = Mutations(repr(seed)), random.Random(repr(seed))
    originals = [(batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()) for batch in batches]
    outcomes = {"taken": 0, "refused": 0}
    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        for _ in range(number):
            schema, batch = choose.choice(originals)
            messages = [flight_data(schema, descriptor()), flight_data(batch)]
            target = choose.choice((0, 1, 1, 1, 1))
            if choose.random() < 0.2:  # the protobuf around it
                messages[target] = mutate(messages[target])
            elif target:
                messages[1] = flight_data(batch[:8] + mutate(batch[8:]))
            else:
                messages[0] = flight_data(schema[:8] + mutate(schema[8:]), descriptor())
            refusal = refusal_of(put, messages)
            if refusal is not None:
                assert refusal.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), refusal
                assert ".py" not in refusal.details()
            outcomes["taken" if refusal is None else "refused"] += 1
    return outcomes


def check_store(url, packets):
    """Everything that was stored is a whole packet under the hash of its own content."""
    with RouterClient(url) as client:
        found = client.read("*").table
        for batch in found.to_batches():
            at = batch.schema.get_field_index("packet_id")
            nameless = batch.set_column(at, "packet_id", pa.nulls(batch.num_rows, pa.string()))
            assert packet.complete(nameless)["packet_id"].equals(batch["packet_id"])
            assert packet.complete(batch.select(INTERCHANGE_SCHEMA.names)).num_rows == batch.num_rows
        assert len(set(found["packet_id"].to_pylist())) == found.num_rows
        before = found.num_rows
        client.deposit(packets(1, 10**6))
        assert client.stats()["packets"] == before + 1
    return found.num_rows


@pytest.mark.parametrize(
    ("number", "seed"),
    [
        (2000, 1),
        pytest.param(100_000, 2, marks=pytest.mark.slow),
        pytest.param(1_000_000, 3, marks=pytest.mark.slow),
    ],
    ids=["few", "many", "a million"],
)
def test_mutated_messages(router_process, packets, number, seed):
    process, url = router_process()
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda at: flood(url, batches(packets), number // 4, (seed, at)), range(4)))
    assert process.poll() is None, "the router has died"
    check_store(url, packets)
    assert sum(one["refused"] for one in outcomes) > number // 2
    assert all(one["taken"] for one in outcomes), "some do no harm; if none is taken, nothing reaches the checks"
    with RouterClient(url) as client:
        refused = client.stats()["refused"]
    assert refused["packet"] > number // 4
    assert "failed" not in refused, "a mutated message is the client's mistake, not the router's"


SERVE_SIGNED = """
import sys
from pathlib import Path
from qis_connectors.router import Router
router = Router(Path(sys.argv[1]), "grpc://127.0.0.1:0", keys=Path(sys.argv[2]))
print(router.url, flush=True)
router.serve()
"""


def test_of_signed_packets_only_what_was_signed_is_stored(router_process, packets, tmp_path):
    signed = sign(packets(40), make_site(tmp_path)).combine_chunks().to_batches()[0]
    process, url = router_process(str(tmp_path / "keys"), SERVE_SIGNED)
    with ThreadPoolExecutor(2) as pool:
        parts = [signed.slice(0, 1), signed.slice(1, 39)]
        outcomes = list(pool.map(lambda at: flood(url, parts, 400, ("signed", at)), range(2)))
    assert process.poll() is None, "the router has died"
    assert sum(one["refused"] for one in outcomes) > 400
    with RouterClient(url) as client:
        found = client.read("*").table.to_pylist()
        assert "failed" not in client.stats()["refused"]
        assert client.quarantine() == []
    assert found, "some mutations do no harm"
    written = signed.to_pylist()
    assert all(row in written for row in found)


def test_the_unchanged_messages_are_taken(router_process, packets):
    _, url = router_process()
    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        put = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        for batch in batches(packets):
            schema, rows = batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()
            assert list(put(iter([flight_data(schema, descriptor()), flight_data(rows)]), timeout=20))
    assert check_store(url, packets) == 103
