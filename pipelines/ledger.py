"""What a site has released, kept beside its rows: two packets that differ by a few records tell these records."""

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.cohorts import Cohort
from pipelines.effects import Cells
from pipelines.linter import Finding, Known
from pipelines.means import Means
from pipelines.noise import NoisyCells
from pipelines.publishing import Published, Rounding
from pipelines.study import Study
from pipelines.study_fields import Gate, Noise
from qis_connectors.errors import QisError

SPENDING = "spending"
"""The kind of an entry that is no cohort's: what a release with noise cost."""


class LedgerError(QisError):
    """The ledger cannot be read or written; nothing may leave without it."""


@dataclass(frozen=True)
class Entry:
    """One release. `cohort` is what was compared, whatever places of the hierarchy (`members`) were in it."""

    cohort: str
    members: list[str]
    records: int
    sums: list[float]
    kind: str
    effect: str = ""
    digits: int | None = None
    multiple: int = 1
    published: tuple[float, float, float, int, list[float] | None] | None = None
    packet_id: str = ""
    epsilon: float = 0.0

    def known(self, study: Study) -> Known | None:
        """What the release told, as the linter takes it."""
        if self.published is None:
            return None
        effect, stderr, level, records, likelihood = self.published
        told = Published(effect, stderr, level, records, None if likelihood is None else tuple(likelihood))
        return study.model_copy(update={"effect": self.effect}), Rounding(self.digits, self.multiple), told


def ledger_of(rows: Path) -> Path:
    return rows.with_name(rows.name + ".released")


def entry(study: Study, site: str, cohort: Cohort) -> Entry:
    """What is to be written of a cohort's release. It has the cell counts: the ledger stays at the site."""
    assert cohort.summary is not None
    what = [
        site,
        study.arms.column,
        study.outcome.kind,
        study.outcome.column,
        study.strata,
        cohort.stratum,
        cohort.period,
    ]
    return Entry(
        json.dumps(what, default=str),
        sorted(json.dumps(place, default=str) for place in cohort.members),
        cohort.summary.records,
        list(cohort.summary.sums()),
        type(cohort.summary).__name__,
    )


def told(new: Entry, finding: Finding, effect: str, packet_id: str) -> Entry:
    """The entry with what the packet says."""
    numbers, likelihood = finding.published, finding.published.likelihood
    published = (
        numbers.effect,
        numbers.stderr,
        numbers.level,
        numbers.records,
        None if likelihood is None else list(likelihood),
    )
    digits, multiple = finding.rounding.digits, finding.rounding.records
    return replace(new, effect=effect, digits=digits, multiple=multiple, published=published, packet_id=packet_id)


def of_the_same(new: Entry, released: list[Entry], study: Study) -> tuple[Known, ...]:
    """What earlier releases told of the very same table: by another effect, or with more digits."""
    same = [old for old in released if (old.cohort, old.members, old.sums) == (new.cohort, new.members, new.sums)]
    return tuple(known for old in same if (known := old.known(study)) is not None)


def spending(site: str, epsilon: float) -> Entry:
    """What is to be written of a release with noise: that it cost `epsilon`, whatever of it passed the gate.

    Its cohorts are of different records and so cost as much as one (parallel composition, McSherry 2009, SIGMOD 19).
    """
    return Entry(_account(site), [], 0, [], SPENDING, packet_id=secrets.token_hex(16), epsilon=epsilon)


def overdrawn(site: str, released: list[Entry], noise: Noise) -> str | None:
    """Why the budget does not allow one release more: the site's cost so much together as each for itself (sequential
    composition, Dwork & Roth 2014, Algorithmic Foundations of Differential Privacy, 3.5.1). None if it does."""
    spent = sum(old.epsilon for old in released if (old.kind, old.cohort) == (SPENDING, _account(site)))
    if spent + noise.epsilon <= noise.budget * (1 + 1e-9):
        return None
    return f"of the noise's budget of {noise.budget:g} {spent:g} is spent, and a release costs {noise.epsilon:g}"


def _account(site: str) -> str:
    return json.dumps([site])


def read(rows: Path) -> list[Entry]:
    """Every release of the site's rows, oldest first."""
    path = ledger_of(rows)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [Entry(**json.loads(line)) for line in lines]
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{path}: is no ledger of releases ({error})") from None


def record(rows: Path, entries: Iterable[Entry]) -> None:
    """Append what is about to leave, once each; it is on disk when this returns, readable by its owner only."""
    known = {one.packet_id for one in read(rows)}
    lines = [json.dumps(asdict(one)) + "\n" for one in entries if one.packet_id not in known]
    if not lines:
        return
    path = ledger_of(rows)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from None


def too_near(new: Entry, released: list[Entry], gate: Gate) -> str | None:
    """Why `new` may not leave after what has: somebody with both would learn of a few records alone.

    Compared are releases of the same cohort: of the same places, record by record as far as the sums tell; of places
    within the other's, by what is left when all of them that are disjoint are taken away (Denning & Schloerer 1983,
    trackers). None if it may leave. What noise was added to tells of no few records and is compared with nothing.
    """
    if new.kind == NoisyCells.__name__:
        return None
    exact = [old for old in released if old.kind != NoisyCells.__name__]
    latest = {tuple(old.members): old for old in exact if old.cohort == new.cohort}
    same = latest.pop(tuple(new.members), None)
    apart = [_differing(new, same)] if same else []
    within = [old for old in latest.values() if set(old.members) < set(new.members)]
    apart += [new.records - old.records for old in within]
    rest, seen = new.records, set[str]()
    for old in sorted(within, key=lambda one: -one.records):
        if not seen & set(old.members):
            rest, seen = rest - old.records, seen | set(old.members)
    apart += [rest] if seen else []
    apart += [old.records - new.records for old in latest.values() if set(new.members) < set(old.members)]
    if any(0 < abs(difference) < gate.min_cell for difference in apart):
        return f"it differs by fewer than {gate.min_cell} records from what was released before"
    return None


def _differing(new: Entry, old: Entry) -> int:
    """At least so many records are in one and not in the other, or other than they were."""
    if new.kind != old.kind:
        return 0
    if new.kind in (Cells.__name__, "Survival"):
        more = abs(new.records - old.records)
        moved = sum(abs(a - b) for a, b in zip(new.sums, old.sums, strict=True))
        return round(more + (moved - more) / 2)
    arm = 3 if new.kind == Means.__name__ else 4
    counts = round(abs(new.sums[0] - old.sums[0]) + abs(new.sums[arm] - old.sums[arm]))
    alike = all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(new.sums, old.sums, strict=True))
    return counts if counts or alike else 1
