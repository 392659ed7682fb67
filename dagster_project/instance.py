"""The Dagster instance of `make demo` and `make ui`: one home, so that the page shows every run of both."""

import os
from pathlib import Path


def use_our_home() -> Path:
    """Points Dagster at dagster_project/home, unless DAGSTER_HOME names another; returns the one that counts."""
    ours = Path(__file__).parent / "home"
    # An empty one, which Dagster takes for none, would lose every run.
    os.environ["DAGSTER_HOME"] = os.environ.get("DAGSTER_HOME") or str(ours)
    return Path(os.environ["DAGSTER_HOME"])
