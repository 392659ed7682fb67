"""What the demo prints at its end, read from the workspace it leaves."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines import bcg
from pipelines.demo import Loop
from pipelines.engine import spark_is_here
from pipelines.forest import rows_of
from qis_connectors.packet import SIZE_ROWS, ipc_bytes, wire_bytes

USUAL_OUT = "qis-demo"
"""Where the Makefile looks when it is told nothing."""


def print_summary(loop: Loop, console: Console) -> None:
    """Sites and their effects, the pooled answers, what moved and what stayed, where the results are, what to type."""
    console.print(_sites(loop), _pooled(loop), sep="")
    for line in (*_influence(loop), *_traffic(loop), *_next(loop)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(title: str, text: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column(text, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows(loop: Loop, answer: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rows_of(pq.read_table(loop.answer(answer)), loop.problem()).to_pylist()
    return rows


def _sites(loop: Loop) -> Table:
    columns = ("rows", "counted by", "effect", "se", "95 % interval")
    table = _table(f"Sites, and the {_effect_name(loop)} that each of them sent", "site", *columns)
    effects = {row["node_id"]: row for row in _rows(loop, "sites")}
    for site in bcg.trials():
        numbers = ("nothing", "", "")
        if row := effects.get(site):
            numbers = (f"{row['estimate']:.4f}", f"{row['se']:.4f}", f"{row['ci_lb']:.2f} to {row['ci_ub']:.2f}")
        rows = loop.rows(site)
        table.add_row(site, f"{pq.read_metadata(rows).num_rows:,}", loop.engine_of(rows), *numbers)
    return table


def _effect_name(loop: Loop) -> str:
    return loop.problem()[1].replace("_", " ")


def _pooled(loop: Loop) -> Table:
    table = _table("All sites together", "method", "estimate", "se", "95 % interval", "tau2", "I2 %")
    pooled = {row["method"]: row for row in _rows(loop, "pooled")}
    for method, label in (("REML", "random effects, REML"), ("DL", "DerSimonian-Laird")):
        row = pooled[method]
        numbers = (f"{row['estimate']:.4f}", f"{row['se']:.4f}", f"{row['ci_lb']:.4f} to {row['ci_ub']:.4f}")
        table.add_row(label, *numbers, f"{row['tau2']:.4f}", f"{row['i2']:.1f}")
    (robust,) = _rows(loop, "robust")
    table.add_row("median, every site alike", f"{robust['median']:.4f}")
    return table


def _influence(loop: Loop) -> Iterator[str]:
    reml = next(row["estimate"] for row in _rows(loop, "pooled") if row["method"] == "REML")
    left = {row["left_out"]: row["estimate"] for row in _rows(loop, "leave_one_out") if row["method"] == "REML"}
    most = max(left, key=lambda site: abs(left[site] - reml))
    yield (
        f"Leaving one site out, REML lies between {min(left.values()):.4f} and {max(left.values()):.4f}; "
        f"{most} moves it most, to {left[most]:.4f}."
    )


def _traffic(loop: Loop) -> Iterator[str]:
    sent = [pq.read_table(loop.staged(site)) for site in bcg.trials()]
    packets = pa.concat_tables(sent)
    alone = sum(ipc_bytes(batch) for table in sent for batch in table.to_batches())
    each = sum(wire_bytes(packets.to_pydict())) / packets.num_rows
    rows = sum(pq.read_metadata(loop.rows(site)).num_rows for site in bcg.trials())
    yield (
        f"Moved: {packets.num_rows} packets of {each:.0f} bytes as part of a batch of {SIZE_ROWS:,} "
        f"({alone / 1000:.1f} kB as they went, each by itself and with its schema)."
    )
    yield f"Kept at home: {rows:,} rows of {len(bcg.trials())} sites."
    if missing := spark_is_here():
        yield f"Spark was not used: {missing}."


def _next(loop: Loop) -> Iterator[str]:
    select = f'SELECT method, estimate, se, tau2 FROM \\"{loop.answer("pooled")}\\"'
    yield f"\nIn {loop.root}: report.html, forest.svg, forest.png, packets (Delta), answers, router (its store)"
    yield "\nTo type next:"
    folder = Path(sys.prefix) / "bin"
    commands = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    yield f"  {commands}/qis synthesize --table {loop.table}"
    yield f"""  {commands}/python -c "import duckdb; duckdb.sql('{select}').show()\""""
    if find_spec("dagster"):
        yield "  make ui" if str(loop.root) == USUAL_OUT else f"  make ui OUT={loop.root}"
