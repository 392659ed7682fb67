"""The thirteen trials as packets of the wire, and a definition of several fields, for the tests of similarity."""

import json

import pyarrow as pa

from pipelines.bcg import trials
from pipelines.effects import log_risk_ratio
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA
from qis_connectors.similarity import Definition

HERE = "clinical.tuberculosis/bcg_vaccine"
MANY = {
    "latitude": {"kernel": "numeric", "scale": 10, "weight": 2},
    "place": {"kernel": "path"},
    "kind": {"kernel": "category", "alike": [["teaching", "university", 0.8]]},
    "allocation": {"kernel": "exact"},
}


def definition(fields=MANY, **changes):
    told = {"name": "t", "version": 1, "author": "x", "domain": "d", "threshold": 0.5, "fields": fields}
    return Definition.model_validate({**told, **changes})


def write(folder, one, name=None):
    """The definition as a file of `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name or one.domain}.yaml"
    path.write_text(json.dumps(one.model_dump(mode="json")), encoding="utf-8")  # JSON is YAML
    return path


def bcg_packets(packet_row, which=bool):
    """One a trial, with its latitude and allocation as context."""
    found = []
    for trial in filter(which, trials().values()):
        effect, stderr = log_risk_ratio(trial.cells)
        context = json.dumps({"latitude": trial.latitude, "allocation": trial.allocation})
        row = packet_row(node_id=trial.site, timestamp_utc=trial.year, metric_delta=effect)
        found.append({**row, "metric_stderr": stderr, "context": context})
    return pa.Table.from_pylist(found, schema=OUTCOME_PACKET_SCHEMA)
