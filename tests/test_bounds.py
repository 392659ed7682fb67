"""What one client can cost the router and the others: streams, bytes, and readers that stop in the middle."""

import json
import queue
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from exchanging import HERE, exchanging_on, has_come
from pyarrow import flight

from qis_connectors import QisError
from qis_connectors.client import RouterClient
from qis_connectors.router import calls, inflight
from qis_connectors.router.inflight import InFlight

NO_STREAMS = {"DoPut": 0, "DoGet": 0, "DoExchange": 0}
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
"""Of a client: or gRPC takes megabytes for a reader that has stopped."""

PATIENCE_SECONDS = 5
STEP_MB = 12
"""What a reader that has stopped may hold."""


def resident_mb(process):
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024


def many(packets, number, **changes):
    """A table of so many packets, quickly: one row's texts, a time of its own each."""
    row = packets(1, **changes)
    table = pa.concat_tables([row] * number).combine_chunks()
    return table.set_column(1, "timestamp_utc", pa.array(range(1, number + 1), pa.int64()))


def test_one_stream_too_many_is_refused_until_another_ends(router, packets, monkeypatch):
    monkeypatch.setattr(calls, "MAX_STREAMS", 3)
    with RouterClient(router.url) as client, flight.connect(router.url) as plain:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(exchanging_on(plain)).read_chunk()
            assert client.stats()["streams"] == {**NO_STREAMS, "DoExchange": 3}
            with pytest.raises(flight.FlightUnavailableError, match=r"^3 streams are open at this router; try again"):
                plain.do_get(flight.Ticket(HERE)).read_all()
            with pytest.raises(QisError, match=r"3 streams are open at this router; try again later$"):
                client.deposit(packets(1))
            assert client.stats()["refused"] == {"busy": 2}
        assert has_come(lambda: client.stats()["streams"] == NO_STREAMS, PATIENCE_SECONDS)
        assert client.deposit(packets(1)).stored == 1
        assert client.stats()["streams"] == NO_STREAMS


def test_a_stream_that_never_says_what_it_wants_counts(router_process):
    _, url = router_process()
    silence = queue.Queue()
    with RouterClient(url) as client, grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")(iter(silence.get, None))
        assert has_come(lambda: client.stats()["streams"]["DoPut"] == 1, PATIENCE_SECONDS)
        call.cancel()
        silence.put(None)
        assert has_come(lambda: client.stats()["streams"]["DoPut"] == 0, PATIENCE_SECONDS)


def test_a_batch_that_finds_no_room_is_refused_and_what_was_there_stays(router, packets, monkeypatch):
    monkeypatch.setattr(inflight, "SMALL_BYTES", 10_000)
    monkeypatch.setattr(inflight, "MAX_BYTES", 50_000)
    with RouterClient(router.url) as client, flight.connect(router.url) as plain:
        table = pa.Table.from_batches([*packets(1).to_batches(), *packets(1000, 1).to_batches()])
        writer, acks = plain.do_put(flight.FlightDescriptor.for_path(HERE), table.schema)
        writer.write_table(table)
        writer.done_writing()
        assert acks.read() is not None
        assert acks.read() is None
        with pytest.raises(
            flight.FlightUnavailableError, match=r"^0 MiB of batches are being checked at this router; "
        ):
            writer.close()
        assert client.stats()["packets"] == 1
        assert client.deposit(packets(100)).stored == 99
        assert client.stats()["refused"] == {"busy": 1}


def test_streams_stop_reading_while_much_is_being_checked(monkeypatch):
    monkeypatch.setattr(inflight, "SMALL_BYTES", 0)
    monkeypatch.setattr(inflight, "PAUSE_BYTES", 100)
    bound, went_on = InFlight(), threading.Event()
    with bound.holding(60), bound.holding(50):
        thread = threading.Thread(target=lambda: (bound.wait_for_room(), went_on.set()))
        thread.start()
        assert not went_on.wait(0.2)
    assert went_on.wait(5)
    thread.join()
    assert bound.bytes == 0


def test_stopped_readers_cost_only_themselves(router_process, packets):
    """What each of them holds is what was read for it from the store and not sent: a step of `reading`."""
    process, url = router_process()
    with RouterClient(url) as client, flight.connect(url, generic_options=SMALL_WINDOW) as plain, ExitStack() as stack:
        for problem_type in ("bcg_vaccine", "other"):
            client.deposit(many(packets, 40_000, problem_type=problem_type))
        client.read("*")
        before, readers = resident_mb(process), []
        for ticket in (HERE, "*") * 3:
            readers.append(plain.do_get(flight.Ticket(ticket)))
            stack.callback(readers[-1].cancel)
            readers.append(stack.enter_context(exchanging_on(plain, ticket)))
            assert all(reader.read_chunk().data.num_rows for reader in readers[-2:])
        assert client.stats()["streams"] == {"DoPut": 0, "DoGet": 6, "DoExchange": 6}
        assert client.read("*").table.num_rows == 80_000
        assert client.deposit(packets(3)).stored == 3
        assert resident_mb(process) - before < 12 * STEP_MB
    with RouterClient(url) as client:
        assert has_come(lambda: client.stats()["streams"] == NO_STREAMS, PATIENCE_SECONDS)


def test_five_hundred_open_streams(router_process, packets):
    process, url = router_process()
    number, lively = 250, 10
    with RouterClient(url) as client, ExitStack() as stack:
        before = resident_mb(process)
        plain = [stack.enter_context(flight.connect(url)) for _ in range(5)]
        puts = []
        for at in range(number):
            puts.append(plain[at % 5].do_put(flight.FlightDescriptor.for_path(HERE), packets(1).schema))
            stack.callback(puts[-1][0].close)

        def deposit(at, start):
            writer, acks = puts[at]
            writer.write_table(packets(1, start + at))
            return json.loads(acks.read().to_pybytes())["stored"]

        assert [deposit(at, 0) for at in range(number)] == [1] * number
        assert resident_mb(process) - before < number * 0.25
        readers = [stack.enter_context(exchanging_on(plain[at % 5])) for at in range(number)]
        assert [reader.read_chunk().data.num_rows for reader in readers] == [number] * number
        assert client.stats()["streams"] == {"DoPut": number, "DoGet": 0, "DoExchange": number}
        assert [deposit(at, number) for at in range(lively)] == [1] * lively

        def follow(reader):
            rows = 0
            while rows < lively:
                rows += reader.read_chunk().data.num_rows
            return rows

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(follow, readers)) == [lively] * number
    with RouterClient(url) as client:
        assert has_come(lambda: client.stats()["streams"] == NO_STREAMS, 20)
