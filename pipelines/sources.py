"""The studies there are, and who takes part: two that come with the code, and every study file of a workspace."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines import bcg, flights
from pipelines.counting import sites_and_months
from pipelines.shipped import shipped
from pipelines.study import Study, StudyError, load


@dataclass(frozen=True)
class Source:
    """One study: its name, its sites, its months (2013-01; none where it has no time), how its rows come about."""

    name: str
    sites: tuple[str, ...]
    months: tuple[str, ...] = ()
    write_rows: Callable[[str, str, Path], int] | None = None
    """Writes the rows of a site and month to a path and returns how many; None: the site has put them there."""
    first: Path | None = None
    """The study file that a new workspace gets a copy of; None: it is there."""


def _bcg_rows(site: str, month: str, path: Path) -> int:  # noqa: ARG001 - a trial has one time
    return bcg.write_rows(bcg.trials()[site], path)


BCG = Source("bcg", tuple(bcg.trials()), write_rows=_bcg_rows, first=shipped("data/bcg.yaml"))
FLIGHTS = Source("flights", flights.SITES, flights.MONTHS, flights.write_rows, shipped("data/flights.yaml"))


def home(root: Path, name: str) -> Path:
    """The folder of a study in the workspace `root`; the main job has the workspace to itself."""
    return root if name == BCG.name else root / "studies" / name


def sources(root: Path) -> list[Source]:
    """BCG, flights, and what is at studies/NAME/study.yaml in the workspace; StudyError where one of those is wrong."""
    ours = {source.name for source in (BCG, FLIGHTS)}
    files = sorted((root / "studies").glob("*/study.yaml"))
    return [BCG, FLIGHTS, *(_found(path) for path in files if path.parent.name not in ours)]


def _found(path: Path) -> Source:
    name = path.parent.name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise StudyError(f"{path.parent}: a study's folder is named with letters, digits and _, a letter first")
    study = load(path)
    parts = _parts(study, path.parent)
    sites, months = ({part[at] for part in parts} for at in (0, 1))
    return Source(name, tuple(sorted(sites)), tuple(sorted(months - {""})))


def _parts(study: Study, folder: Path) -> set[tuple[str, str]]:
    """The sites and months that rows are there of, by the names of the files, else by what they hold; none before the
    first rows.
    """
    names = {r"\{site\}": "(?P<site>[^/]+)", r"\{month\}": r"(?P<month>\d{4}-\d\d)"}
    shape = re.escape(study.pattern)
    for name, group in names.items():
        shape = shape.replace(name, group)
    parts = set[tuple[str, str]]()
    for path in folder.glob(study.pattern.replace("{site}", "*").replace("{month}", "*")):
        if told := re.fullmatch(shape, path.relative_to(folder).as_posix()):
            named = {"site": study.site, "month": "", **told.groupdict()}
            parts |= {(named["site"] or site, named["month"] or month) for site, month in sites_and_months(study, path)}
    return parts
