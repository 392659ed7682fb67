"""Making a store's catalogue and ids anew, out of its packs."""

import shutil
import time
from pathlib import Path

from qis_connectors.router.packet_log.catalogue import Catalogue
from qis_connectors.router.packet_log.chains import remembered
from qis_connectors.router.packet_log.chunk import SPAN
from qis_connectors.router.packet_log.journal import sync_folder
from qis_connectors.router.packet_log.packet_index import PacketIndex, id_run, packed_ids, unpacked
from qis_connectors.router.packet_log.packs import Packs, Run


def rebuild(path: Path, packs: Packs, ids: Path) -> None:
    """The catalogue, new in the file `path`, and with it the ids in the folder `ids`.

    Under its name once all packs are in it: of half a catalogue the other packs would look like rubbish.
    """
    shutil.rmtree(ids, ignore_errors=True)
    draft = path.with_suffix(".draft")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{draft}{suffix}").unlink(missing_ok=True)
    index = PacketIndex(ids, [])
    catalogue = Catalogue(draft)
    covered: dict[int, list[tuple[int, int]]] = {}
    # A pack that was merged from others has a higher number; a crash may have left those others beside it.
    for pack in sorted(packs.numbers(), reverse=True):
        runs: list[Run] = []
        packed = b""
        for packets, of_record in packs.all_of(pack):
            runs += of_record
            packed += packed_ids(packets["packet_id"]) + remembered(packets)
        if not runs:
            continue
        first, last, span = min(run.first for run in runs), max(run.last for run in runs), runs[0].first // SPAN
        if any(start <= first and last <= end for start, end in covered.get(span, [])):
            continue
        covered.setdefault(span, []).append((first, last))
        run = index.write(pack, [id_run(unpacked(packed))])
        with catalogue.writing() as writer:
            catalogue.add(writer, pack, runs)
            writer.execute("INSERT INTO id_run VALUES (?, ?)", (pack, run.checksum))
            writer.execute("UPDATE state SET flushed = max(flushed, ?)", (last,))
            writer.execute("INSERT OR REPLACE INTO flush VALUES (?, ?)", (last, time.time()))
    catalogue.close()  # which puts all of it into the one file
    draft.rename(path)
    sync_folder(path.parent)
