"""`python -m pipelines.training`: everything drawn anew for each seed, then a row for each arm."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import track

from pipelines.output import Format, notices, print_rows
from pipelines.training.arms import accuracies, summary
from qis_connectors.router import Router


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.training", description="Four nodes train, alone and together."
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many times everything is drawn anew")
    parser.add_argument("--format", type=Format, choices=list(Format), default=Format.table)
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds must be at least 2: one seed has no interval")
    with TemporaryDirectory() as folder, Router(Path(folder) / "router", "grpc://127.0.0.1:0") as router:
        seeds = track(range(given.seeds), "Training", console=notices, transient=True, disable=not notices.is_terminal)
        found = [accuracies(seed, router.url) for seed in seeds]
    print_rows(summary(found), given.format)


if __name__ == "__main__":
    main()
