"""Servers for the benchmark, each in a process of its own: python bare_flight.py KIND FOLDER prints where it listens.

memory      Flight that keeps what it gets in a list and acknowledges at once: the floor of a deposit's rate, and
            of reading where one large table was put
synced      the same, with a write and an fdatasync of the batch's bytes before each acknowledgement
article     the list again, as the articles on QIS have it: one-row batches, concatenated on read
router      ours
ungrouped   ours with one deposit a commit
json        the same packets over HTTP
"""

import os
import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import flight

from qis_connectors.router import Router
from qis_connectors.router.packet_log import log

_ACK = b'{"stored": 1, "duplicates": 0, "cursor": 1}'


class Bare(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow ships no types
    """No check, no id, no index."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._file = os.open(folder / "deposits", os.O_WRONLY | os.O_CREAT | os.O_APPEND) if kind == "synced" else None
        super().__init__("grpc://127.0.0.1:0")

    def do_put(
        self,
        _: object,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        if descriptor.path == [b"clear"]:
            self._batches.clear()
        for chunk in reader:
            if self._file is not None:
                os.write(self._file, chunk.data.serialize())
                os.fdatasync(self._file)
            self._batches.append(chunk.data)
            writer.write(_ACK)

    def do_get(self, *_: object) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(pa.Table.from_batches(self._batches))


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "json":
        from json_http import serve

        serve()
        return
    if kind == "ungrouped":
        log.GROUP_ROWS = 1
    if kind in ("router", "ungrouped", "signed", "bounded"):
        keys = folder.parent / "keys" if kind in ("signed", "bounded") else None
        quotas = folder.parent / "quotas.yaml" if kind == "bounded" else None
        router = Router(folder, "grpc://127.0.0.1:0", keys=keys, quotas=quotas)
        sys.stdout.write(router.url + "\n")
        sys.stdout.flush()
        router.serve()
        return
    server = Bare(kind, folder)
    sys.stdout.write(f"grpc://127.0.0.1:{server.port}\n")
    sys.stdout.flush()
    server.serve()


if __name__ == "__main__":
    main()
