"""What a site's distillation costs: beside the same query by hand in Polars, in memory, and the attack on each packet.

python benchmarks/distill.py [--json] [--quick]
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
from figures import Figure, main

from pipelines.distill import distill
from pipelines.effects import MEASURES, Cells
from pipelines.engine import Engine, spark_is_here
from pipelines.linter import lint
from pipelines.study import Study

ROWS = """
SELECT
    hash(i, 1) % 2 = 0 AS vaccinated,
    hash(i, 2) % 100 < 7 + hash(i, 1) % 2 AS tuberculosis,
    CAST(120 + (hash(i, 3) % 10007) / 250 AS DOUBLE) AS pressure,
    44 AS latitude,
    'random' AS allocation,
    2026 AS year
FROM range({rows}) AS numbers (i)
"""
OUTCOMES = {
    "binary": ({"column": "tuberculosis", "event": True, "better": "lower"}, "log_risk_ratio"),
    "continuous": ({"kind": "continuous", "column": "pressure", "better": "lower"}, "mean_difference"),
}
COLUMNS = ("vaccinated", "latitude", "allocation", "year")
PEAK = "import sys; from distill import peak; peak(sys.argv[1], sys.argv[2])"


def study(kind: str) -> Study:
    outcome, effect = OUTCOMES[kind]
    return Study.model_validate(
        {
            "study": "bench",
            "domain": "bench",
            "problem_type": kind,
            "rows": "rows.parquet",
            "site": "site",
            "arms": {"column": "vaccinated", "treated": True, "control": False},
            "outcome": outcome,
            "effect": effect,
            "intervention": {"type": "vaccination"},
            "context": ["latitude", "allocation"],
            "time": "year",
        }
    )


def measure(quick: bool) -> Iterable[Figure]:
    yield from _attacks(quick)
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.parquet"
        for millions in (2,) if quick else (10, 100):
            _write(rows, millions * 1_000_000)
            yield from _beside_polars(rows, millions, quick)
            yield from _beside_engines(rows, millions, quick)
            for kind in OUTCOMES:
                hold = "<= 2" if millions == 100 else ""
                yield Figure(f"{millions} M rows, {kind}: peak memory, GB", _peak(rows, kind), hold)


def _attacks(quick: bool) -> Iterable[Figure]:
    """Tables of up to 10,000 people; the slowest in a hundred is what a site waits for."""
    random, tries = Random(1), 60 if quick else 600
    for too_few, what in (("send", "one attack"), ("round", "attack and rounding")):
        times = []
        for _ in range(tries):
            n = random.randint(400, 5000)
            cells = Cells(*(one for arm in (n, n) for e in [random.randint(11, n // 3)] for one in (e, arm - e)))
            plan = study("binary").model_copy(update={"effect": random.choice(list(MEASURES))})
            plan = plan.model_copy(update={"linter": plan.linter.model_copy(update={"too_few": too_few, "why": "x"})})
            times.append(_seconds(lambda cells=cells, plan=plan: lint(cells, plan)) * 1000)
        times.sort()
        behind = f"p99 {times[len(times) * 99 // 100]:.1f}, {tries} tables"
        yield Figure(f"linter, n <= 10,000: {what}, ms a packet", median(times), "<= 10", behind)


def _beside_polars(rows: Path, millions: int, quick: bool) -> Iterable[Figure]:
    for kind in OUTCOMES:
        plan = study(kind)
        distill(plan, "site", rows)
        ours, theirs = [], []
        for _ in range(5 if quick else 7):  # paired: the machine is shared
            theirs.append(_seconds(lambda kind=kind: _by_hand(rows, kind)))
            ours.append(_seconds(lambda plan=plan: distill(plan, "site", rows)))
        ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
        behind = f"{median(ours):.3f} s / {median(theirs):.3f} s"
        yield Figure(
            f"{millions} M rows, {kind}: distill / by hand in Polars", ratio, "" if quick else "<= 1.05", behind
        )


def _beside_engines(rows: Path, millions: int, quick: bool) -> Iterable[Figure]:
    engines: list[Engine] = ["duckdb"] if quick or spark_is_here() else ["duckdb", "spark"]
    polars = _warm(rows, "polars")
    for engine in engines:
        other = _warm(rows, engine)
        yield Figure(f"{millions} M rows, binary: {engine} / Polars", other / polars, "", f"{other:.2f} s")


def _warm(rows: Path, engine: Engine) -> float:
    distill(study("binary"), "site", rows, engine)
    return median(_seconds(lambda: distill(study("binary"), "site", rows, engine)) for _ in range(3))


def _by_hand(rows: Path, kind: str) -> pl.DataFrame:
    frame = pl.scan_parquet(rows)
    if kind == "binary":
        return frame.group_by("vaccinated", "tuberculosis", *COLUMNS[1:]).agg(pl.len()).collect(engine="streaming")
    x = pl.col("pressure")
    x = pl.when(~x.is_nan()).then(x)
    sums = [pl.len(), x.count().alias("n"), x.mean().alias("mean"), x.var().alias("variance")]
    sums += [x.abs().sum().alias("absolute"), x.abs().max().alias("largest")]
    return frame.group_by(*COLUMNS).agg(*sums).collect(engine="streaming")


def _write(rows: Path, many: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"SET preserve_insertion_order = false; COPY ({ROWS.format(rows=many)}) TO '{rows}'")


def _peak(rows: Path, kind: str) -> float:
    """In a process of its own, imports and all."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, rows, kind], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    return float(done.stdout)


def peak(rows: str, kind: str) -> None:
    distill(study(kind), "site", Path(rows))
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main("Distillation", measure)
