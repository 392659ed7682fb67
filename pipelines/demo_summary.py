"""What the demo prints at its end, read from the workspace it leaves."""

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines import bcg
from pipelines.demo import Loop
from pipelines.engine import spark_is_here
from qis_connectors.packet import wire_bytes


def print_summary(loop: Loop, console: Console) -> None:
    console.print(_sites(loop), _pooled(loop), sep="\n")
    _print_influence(loop, console)
    _print_traffic(loop, console)
    _print_next(loop, console)


def _sites(loop: Loop) -> Table:
    table = Table(title="Sites and what each of them sent", title_justify="left", header_style="bold")
    for name in ("site", "rows kept", "counted by", "log risk ratio", "standard error", "95 % interval"):
        table.add_column(name, justify="left" if name in ("site", "counted by") else "right")
    for site in bcg.trials():
        rows = pq.read_metadata(loop.rows(site)).num_rows
        for packet in pq.read_table(loop.staged(site)).to_pylist():
            effect, stderr = packet["metric_delta"], packet["metric_stderr"]
            interval = f"{effect - 1.96 * stderr:.2f} to {effect + 1.96 * stderr:.2f}"
            table.add_row(site, f"{rows:,}", loop.engine_of(site), f"{effect:.4f}", f"{stderr:.4f}", interval)
    return table


def _pooled(loop: Loop) -> Table:
    table = Table(title="All sites together", title_justify="left", header_style="bold")
    for name in ("method", "log risk ratio", "standard error", "95 % interval", "tau2", "I2 %"):
        table.add_column(name, justify="left" if name == "method" else "right")
    pooled = {row["method"]: row for row in pq.read_table(loop.answer("pooled")).to_pylist()}
    for method, label in (("REML", "random effects, REML"), ("DL", "random effects, DerSimonian-Laird")):
        row = pooled[method]
        interval = f"{row['ci_lb']:.4f} to {row['ci_ub']:.4f}"
        numbers = (f"{row['estimate']:.4f}", f"{row['se']:.4f}", interval, f"{row['tau2']:.4f}", f"{row['i2']:.1f}")
        table.add_row(label, *numbers)
    (robust,) = pq.read_table(loop.answer("robust")).to_pylist()
    table.add_row("median, every site alike", f"{robust['median']:.4f}", *[""] * 4)
    return table


def _print_influence(loop: Loop, console: Console) -> None:
    """The site whose absence moves the REML answer most."""
    pooled = pq.read_table(loop.answer("pooled")).to_pylist()
    reml = next(row["estimate"] for row in pooled if row["method"] == "REML")
    left = [row for row in pq.read_table(loop.answer("leave_one_out")).to_pylist() if row["method"] == "REML"]
    most = max(left, key=lambda row: abs(row["estimate"] - reml))
    console.print(
        f"Leaving one site out moves REML between {min(row['estimate'] for row in left):.4f} and "
        f"{max(row['estimate'] for row in left):.4f}; most without {most['left_out']} ({most['estimate']:.4f})."
    )


def _print_traffic(loop: Loop, console: Console) -> None:
    sites = list(bcg.trials())
    packets = pa.concat_tables(pq.read_table(loop.staged(site)) for site in sites)
    sent = sum(wire_bytes(packets.to_pydict()))
    rows = sum(pq.read_metadata(loop.rows(site)).num_rows for site in sites)
    console.print(
        f"Moved: {packets.num_rows} packets, {sent / 1000:.1f} kB ({sent / packets.num_rows:.0f} bytes each). "
        f"Kept at home: {rows:,} rows."
    )


def _print_next(loop: Loop, console: Console) -> None:
    if missing := spark_is_here():
        console.print(f"Spark was not used: {missing}.", style="yellow")
    console.print(
        f"\nWritten to {loop.root}: report.html, forest.svg, forest.png, packets (Delta), router (its store)\n"
        "\nTo type next:\n"
        f"  open {loop.root / 'report.html'} in a browser\n"
        "  make ui\n"
        f"  .venv/bin/qis synthesize pooled --table {loop.table}\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
