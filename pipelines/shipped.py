"""Files that travel with the code but are not code: the SQL and the small data files."""

from __future__ import annotations

from pathlib import Path


def shipped(relative: str) -> Path:
    """The path of `relative` ("sql", "data/t_crit.csv") in this checkout, else in the installed package.

    Raises FileNotFoundError where neither has it.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent
    # pyproject.toml marks a checkout; beside an installed package, "data" could be anyone's folder.
    root = checkout if (checkout / "pyproject.toml").is_file() else package / "shipped"
    path = root / relative
    if not path.exists():
        raise FileNotFoundError(f"{relative} is neither in a checkout nor in the installed package: {path}")
    return path
