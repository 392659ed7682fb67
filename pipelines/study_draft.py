"""A first study file for a table: its columns where they seem to belong, and a word on each line."""

import json
from pathlib import Path
from typing import Any

import narwhals as nw

from pipelines.engine import EngineError, readable, scan

LOOKED_AT = 100_000
"""Rows that are looked at for what a column holds."""

TEXT = """# A study: where a site's rows are, what was tried, what came of it, and what may leave.
# Guessed from {name}; every line wants a look. Then: qis study check THIS_FILE
#
# columns of the table:
{columns}

study: {stem}
domain: my.domain                 # dotted, as agreed with the other sites
problem_type: {stem}              # domain/problem_type is the address the packets go to

rows: {rows}                      # Parquet, CSV or Delta; sites/{{site}}/rows.csv for one table a site;
                                  # or {{query: "SELECT ...", database: my.duckdb or postgresql://user@host/db}}
site: my-site                     # node_id of the packets; or `site_column: COLUMN`, or {{site}} in rows

arms: {{column: {arm}, treated: {treated}, control: {control}}}
outcome: {{column: {outcome}, event: {event}, better: lower}}
  # {{kind: continuous, column: C, better: higher}}
  # {{kind: count, column: C, exposure: PERSON_TIME, better: lower}}
  # {{kind: time_to_event, column: C, event: VALUE, duration: TIME, better: lower}}
effect: log_risk_ratio            # binary: log_risk_ratio, log_odds_ratio, risk_difference
                                  # continuous: mean_difference, standardised_mean_difference
                                  # count: log_rate_ratio; time_to_event: log_hazard_ratio
intervention: {{type: {arm}, params: {{}}}}

time: {time}                        # a column of years, dates or times; or the year or date itself
# period: month                   # a packet for each year, quarter, month or day of `time`
# strata: [sex]                   # a packet for each value
# rollup: [ward, hospital]        # finest first: what is too small joins its neighbours
# context: [latitude]             # the same in all rows of a site: what similarity may be judged by
# missing: {{values: [-9], at_most: 0.2}}
# likelihood: {{from: -3, to: 3}}   # send the log-likelihood on 8 points too: for sparse sites; `gradients: true` with
                                  # its slopes: 8 numbers more, where thousands of people shall add up closely
# linter: {{tables: 2, too_few: round}}   # fewer digits until two tables fit; or refuse, or send (with a why)
gate: {{min_cell: 11}}              # cells of 1 to 10 people stay at home; lower needs a reason under `why`
# noise: {{epsilon: 1, budget: 5}}   # differential privacy of the cells (OpenDP); each release costs epsilon
  # {{min_cell: 11, contributor: PHYSICIAN, max_share: 0.5}}   # nor does one have more than half of a cell
"""


def draft(table: Path) -> str:
    """The text of a study file for a table: arms and outcome are its first columns of two values.

    Raises EngineError where the table cannot be read or has no column of two values.
    """
    with readable(table, "polars"):
        frame = scan(table, "polars").head(LOOKED_AT).collect()
    values = {name: sorted(frame[name].drop_nulls().unique().to_list(), key=str) for name in frame.columns}
    pairs = [name for name, held in values.items() if len(held) == 2]
    if not pairs:
        raise EngineError(f"{table}: no column holds two values, so there are no arms to compare")
    arm, outcome = pairs[0], pairs[1] if len(pairs) > 1 else pairs[0]
    dates = [
        name for name, kind in frame.schema.items() if isinstance(kind, nw.Date | nw.Datetime) or "year" in name.lower()
    ]
    columns = "\n".join(f"#   {_yaml(name)}: {frame.schema[name]}{_few(held)}" for name, held in values.items())
    return TEXT.format(
        name=table.name,
        stem=_yaml(table.stem),
        rows=_yaml(table.name),
        columns=columns,
        arm=_yaml(arm),
        treated=_yaml(values[arm][1]),
        control=_yaml(values[arm][0]),
        outcome=_yaml(outcome),
        event=_yaml(values[outcome][1]),
        time=_yaml(dates[0]) if dates else "2026",
    )


def _few(held: list[Any]) -> str:
    return f", {' '.join(map(_yaml, held))}" if 0 < len(held) <= 5 else ""


def _yaml(value: object) -> str:
    """A value as YAML reads it back: plain where nothing else can be meant."""
    text = str(value)
    plain = text.isascii() and text.replace("_", "").isalnum() and not text[0].isdigit()
    ambiguous = text.lower() in ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    if isinstance(value, str):
        return text if plain and not ambiguous else json.dumps(text, ensure_ascii=False)
    return json.dumps(value, default=str)
