"""What a router of ten million packets takes: memory, however it is read; a start behind a crash.

Its own memory is held to a bound. Pages of the store's files are the system's cache, which takes them back.
"""

import random
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import pytest
from load import ADDRESS, batches
from pyarrow import flight
from stores import PACKETS_AN_ADDRESS, fill_many_addresses

PACKETS = 10_000_000
DISK_BYTES = 12 << 30
LIMIT_MB = 512
NAMES = {"VmHWM": "peak", "RssAnon": "own", "RssFile": "of files"}


def memory(process):
    """MB: the peak, and of what is resident now the process's own and the files'."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return {told: int(re.search(rf"{name}:\s+(\d+) kB", status).group(1)) / 1024 for name, told in NAMES.items()}


def rows_of(client, ticket):
    """How many packets a ticket gives; none of them is kept."""
    return sum(chunk.data.num_rows for chunk in client.do_get(flight.Ticket(ticket)))


def deposit(url, rows, is_over):
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(ADDRESS), next(batches(rows)).schema)
        with writer:
            for batch in batches(rows):
                writer.write_batch(batch)
                assert acks.read() is not None
                if is_over.is_set():
                    break
            writer.done_writing()


@pytest.mark.slow
def test_ten_million_packets_are_served_in_half_a_gigabyte_of_its_own(tmp_path, router_process, capsys):
    if shutil.disk_usage(tmp_path).free < DISK_BYTES:
        pytest.skip(f"needs {DISK_BYTES >> 30} GB of disk")
    store = tmp_path / "store"
    try:
        names = fill_many_addresses(store, PACKETS)
        figures = serve_and_measure(router_process, names)
    finally:
        shutil.rmtree(store)
    with capsys.disabled():
        sys.stdout.write("".join(f"\n  {name}: {value:.4g}" for name, value in figures.items()))
    assert figures["own MB, peak"] < LIMIT_MB


def serve_and_measure(router_process, names):
    process, url = router_process()
    figures, is_over, chance = {}, Event(), random.Random(1)
    own, files = [], []

    def look():
        while not is_over.wait(0.02):
            now = memory(process)
            own.append(now["own"])
            files.append(now["of files"])

    def addresses(number):
        with flight.connect(url) as client:
            for name in random.Random(number).sample(names, 500):
                assert rows_of(client, name) == PACKETS_AN_ADDRESS

    def prefix(ticket, rows):
        with flight.connect(url) as client:
            assert rows_of(client, ticket) == rows

    figures |= {f"{name} MB at first": value for name, value in memory(process).items()}
    watcher = Thread(target=look)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        deposits = [pool.submit(deposit, url, rows, is_over) for rows in (1, 1000)]
        problems = "clinical.tuberculosis/problem-*"
        reads = [pool.submit(prefix, problems, len(names) * PACKETS_AN_ADDRESS) for _ in range(2)]
        reads += [pool.submit(addresses, number) for number in range(2)]
        reads += [pool.submit(prefix, f"clinical.tuberculosis/problem-00{at:02}*", 100_000) for at in range(20)]
        try:
            for one in reads:
                one.result()
        finally:
            is_over.set()
        for one in deposits:
            one.result()
    watcher.join()
    figures |= {"peak MB": memory(process)["peak"], "own MB, peak": max(own), "of files MB, peak": max(files)}
    process.kill()
    process.wait()
    began = time.perf_counter()
    process, url = router_process()
    figures["start behind kill -9, s"] = time.perf_counter() - began
    with flight.connect(url) as client:
        seconds = []
        for name in chance.sample(names, 200):
            began = time.perf_counter()
            rows_of(client, name)
            seconds.append(time.perf_counter() - began)
    figures["look-up of an address, ms"] = 1000 * sorted(seconds)[len(seconds) // 2]
    return figures
