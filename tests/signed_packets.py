"""Sites with keys, and what they sign."""

import json

import pyarrow as pa
from pyarrow import flight

from qis_connectors import packet
from qis_connectors.keys import make_key
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.signing import sign

HERE = "clinical.tuberculosis/bcg_vaccine"


def make_site(folder, node_id="site-a"):
    """The secret key of a new site, in a folder of its own, whose public key is in folder/keys."""
    secret, public = make_key(node_id, folder / f"home of {node_id}")
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / public.name).write_bytes(public.read_bytes())
    return secret


def changed(table, row=0, **values):
    """The table with other values in one row, packet_ids as they then are."""
    rows = table.to_pylist()
    rows[row] |= values
    if "packet_id" not in values:
        rows = [{**one, "packet_id": None} for one in rows]
    return packet.complete(pa.RecordBatch.from_pylist(rows, schema=OUTCOME_PACKET_SCHEMA))


def forked(secret, folder, table):
    """The table signed from a copy of the site's chain: what it signs next itself stands at the same sequences."""
    folder.mkdir()
    for path in secret.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o600)
    return sign(table, folder / secret.name)


def put(url, table):
    """By plain Flight, which checks nothing before it sends: FlightServerError where the router refuses."""
    batch = table if isinstance(table, pa.RecordBatch) else table.combine_chunks().to_batches()[0]
    with flight.connect(url) as client:
        writer, acks = client.do_put(flight.FlightDescriptor.for_path(HERE), batch.schema)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            found = acks.read()
        return found and json.loads(found.to_pybytes())


def audited(store):
    """The lines of the audit log of the router on this store."""
    return [json.loads(line) for path in sorted(store.glob("audit/*.jsonl")) for line in path.read_text().splitlines()]
