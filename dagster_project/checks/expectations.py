"""What Great Expectations is told of staged packets: their schema and the ranges of their values."""

import os
import warnings
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.inspection import Finding
from pipelines.study import Study
from qis_connectors.packet import OUTCOME_PACKET_SCHEMA

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

LARGEST_EFFECT = 20.0
"""An effect beyond it, a ratio of e^20, is a slip of units."""


def meet_expectations(packets: pa.Table, study: Study, site: str) -> list[Finding]:
    """Each expectation, over how many values, and how many of them it does not hold for.

    Great Expectations takes seconds to import, so that is done here and not where the page starts.
    """
    # It would tell its makers who uses it.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        suite = gx.ExpectationSuite("staged packets", expectations=_expectations(study, site))
        frame = context.data_sources.add_pandas("site").add_dataframe_asset("packets")
        batch = frame.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": packets.to_pandas()})
        # Never with the values that were not expected: they may be somebody's.
        results = batch.validate(suite, result_format="BASIC").results
    return [
        Finding(
            config.type.removeprefix("expect_")
            .replace("_", " ")
            .replace("column values", str(config.kwargs.get("column"))),
            packets.num_rows,
            0 if result.success else int(result.result.get("unexpected_count") or 1),
        )
        for result in results
        if (config := result.expectation_config)
    ]


def _expectations(study: Study, site: str) -> "list[Expectation]":
    from great_expectations import expectations as gxe  # it lists no exports

    def between(column: str, low: float, high: float | None, *, strict: bool = False) -> "Expectation":
        return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high, strict_min=strict)

    same = {
        "node_id": site,
        "domain": study.domain,
        "problem_type": study.problem_type,
        "metric_name": study.effect,
        "intervention_type": study.intervention.type,
    }
    if study.phase is not None:
        same["training_phase"] = study.phase
    # A mean is in its own unit, and so is the difference of two.
    ranges = {
        "binary": [between("metric_value", 0, 1)],
        "count": [between("metric_value", 0, None)],
        "time_to_event": [between("metric_value", 0, None)],
    }.get(study.outcome.kind, [])
    if study.effect != "mean_difference":
        ranges.append(between("metric_delta", -LARGEST_EFFECT, LARGEST_EFFECT))
    return [
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=OUTCOME_PACKET_SCHEMA.names),
        *(gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[value]) for column, value in same.items()),
        gxe.ExpectColumnValuesToBeUnique(column="packet_id"),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=column)
            for column in ("packet_id", "raw_data_hash", "metric_delta")
        ),
        *ranges,
        between("metric_stderr", 0, None, strict=True),
        between("confidence", 0, 1),
        between("outcome_decile", 1, 10),
        between("sample_count", 1, None),
    ]
