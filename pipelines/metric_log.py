"""A training run's log -> packets: what each epoch changed, of each metric that the study names."""

from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from pipelines.commitment import commit, salt_of
from pipelines.counting import Groups, Value
from pipelines.study import MetricLog, StudyError
from pipelines.values import as_json, constant, milliseconds
from qis_connectors.outcome import deciles


def log_packets(study: MetricLog, site: str, rows: Path, groups: Groups) -> list[dict[str, Any]]:
    """A packet for every epoch after the first, of every metric: metric_delta is the change since the epoch before.

    A log says nothing of how sure it is: there is no standard error, and confidence is 0. Raises StudyError where an
    epoch has two values of a metric, or an epoch or a value is no number.
    """
    at = {name: groups.names.index(name) for name in groups.names}
    packets = []
    for metric, better in study.metrics.items():
        epochs = _epochs(study, metric, rows, groups, at)
        if len(epochs) < 2:
            continue
        order = sorted(epochs)
        last = study.epochs or round(order[-1])
        pairs = list(pairwise(order))
        changes = [epochs[now][0] - epochs[before][0] for before, now in pairs]
        ranks = deciles([change if better == "higher" else -change for change in changes])
        for (_, now), change, rank in zip(pairs, changes, ranks, strict=True):
            value, keys = epochs[now]
            time = keys[at[study.time]] if isinstance(study.time, str) else study.time
            packets.append(
                {
                    "node_id": site,
                    "timestamp_utc": milliseconds(time, study.time, rows),
                    "domain": study.domain,
                    "problem_type": study.problem_type,
                    "model_architecture": study.model_architecture,
                    "training_phase": f"epoch_{now:g}_of_{last}",
                    "metric_name": metric,
                    "metric_delta": change,
                    "metric_value": value,
                    "confidence": 0.0,
                    "intervention_type": study.intervention.type,
                    "intervention_params": as_json(study.intervention.params, "intervention.params"),
                    "outcome_decile": rank,
                    "sample_count": study.records,
                    "raw_data_hash": commit([keys], salt_of(rows)),
                    "context": as_json(
                        {name: constant(groups.keys, groups.names, name, rows) for name in study.context},
                        f"{rows}: context",
                    ),
                }
            )
    if not packets:
        raise StudyError(f"{rows}: no metric of {', '.join(study.metrics)} has two epochs")
    return packets


def _epochs(
    study: MetricLog, metric: str, rows: Path, groups: Groups, at: dict[str, int]
) -> dict[float, tuple[float, tuple[Value, ...]]]:
    """Epoch -> the metric's value and its row. Rows without a value, such as a NaN of a diverged run, are left out."""
    found: dict[float, tuple[float, tuple[Value, ...]]] = {}
    for keys, _, _ in groups:
        epoch, value = keys[at[study.epoch]], keys[at[study.value]]
        if keys[at[study.metric]] != metric or value is None:
            continue
        if not isinstance(epoch, int | float) or not isinstance(value, int | float):
            raise StudyError(f"{rows}: an epoch and its {metric} are numbers, not {epoch!r} and {value!r}")
        if not isfinite(value):
            continue
        if epoch in found:
            raise StudyError(f"{rows}: epoch {epoch} has more than one {metric}")
        found[epoch] = (float(value), keys)
    return found
