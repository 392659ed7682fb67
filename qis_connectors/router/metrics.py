"""The router's Prometheus metrics, on a port of their own. All is read when it is scraped; nothing is counted here."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from qis_connectors.router.listen import ListenError
from qis_connectors.router.status import Status
from qis_connectors.router.traffic import BOUNDS, Histogram


@contextmanager
def serving(status: Status, host: str, port: int) -> Iterator[str]:
    """The URL that a Prometheus scrapes, for as long as the block runs. ListenError where it is taken."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RouterCollector(status))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ListenError(f"cannot serve metrics on {host}:{port}: {(error.strerror or str(error)).lower()}") from None
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RouterCollector(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._calls()
        yield from self._store()

    def _traffic(self) -> Iterator[Metric]:
        total = self._status.traffic.total()
        for name, text, value in (
            ("qis_deposit_batches", "batches that were handed to the log", total.batches),
            ("qis_packets_stored", "packets that were new", total.stored),
            ("qis_packets_duplicate", "packets that were there already", total.duplicates),
            ("qis_packets_staged", "packets staged in transactions", total.staged),
            ("qis_packets_sent", "packets sent to readers", total.packets_out),
            ("qis_received_bytes", "bytes of the batches that were handed to the log", total.bytes_in),
            ("qis_sent_bytes", "bytes of the batches sent to readers", total.bytes_out),
        ):
            yield CounterMetricFamily(name, text, value)
        for name, text, value in (
            ("qis_queued_batches", "batches not yet answered", total.batches - total.answered_batches),
            ("qis_queued_bytes", "bytes of the batches not yet answered", total.bytes_in - total.answered_bytes),
            ("qis_in_flight_bytes", "bytes of large batches being checked", self._status.in_flight.bytes),
        ):
            yield GaugeMetricFamily(name, text, value)
        yield _histogram("qis_deposit_seconds", "from a batch's arrival until it is on the disk", total.acknowledged)

    def _calls(self) -> Iterator[Metric]:
        streams = GaugeMetricFamily("qis_open_streams", "streams open now; subscribers are DoExchange", labels=["rpc"])
        for rpc, count in self._status.calls.open().items():
            streams.add_metric([rpc], count)
        yield streams
        refused = CounterMetricFamily(
            "qis_refused_calls", "calls that ended with an error, by its kind", labels=["rpc", "reason"]
        )
        for key, count in self._status.refusals.counts().items():
            refused.add_metric(key, count)
        yield refused
        yield _histogram("qis_read_seconds", "a DoGet from end to end", self._status.calls.seconds("DoGet"))

    def _store(self) -> Iterator[Metric]:
        status = self._status
        holdings = status.holdings()
        for name, text, value in (
            ("qis_store_packets", "packets stored", holdings.packets),
            ("qis_store_addresses", "addresses that hold packets", holdings.addresses),
            ("qis_store_disk_bytes", "bytes of the store's files", status.disk_bytes()),
            ("qis_store_damaged_records", "records found damaged, whose packets are not handed out", status.damaged()),
            ("qis_chain_gaps", "packets that came before their node's previous one, since the start", status.log.gaps),
            ("qis_quarantined_packets", "packets kept as evidence against their own node", status.quarantine.count),
            ("qis_head_cursor", "cursor of the newest packet", holdings.head),
        ):
            yield GaugeMetricFamily(name, text, value)
        identity = {"version": version("qis-connectors"), "store": status.log.store.identity}
        yield InfoMetricFamily("qis_router", "which router this is", identity)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)
