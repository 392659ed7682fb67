"""What is too small to leave a site: the gate on what is behind a packet. linter.py attacks the packet itself."""

from collections import defaultdict

from pipelines.cohorts import Cohort, Group, summary_of
from pipelines.contributors import CONTRIBUTOR, ROUNDING
from pipelines.effects import Summary
from pipelines.study import Study
from pipelines.study_fields import Gate


def too_small(summary: Summary, gate: Gate, numbers: int = 4) -> str | None:
    """Why a packet of `numbers` numbers on this summary must stay at the site; None if it may leave.

    A log risk ratio, its standard error and n give the four cells back for most real tables, so the gate is on the
    cells and not on n. It names the cell and not its count: the notice is read by more people than the rows are.
    The share of one row is the (1, k) dominance rule (Hundepool et al. 2012, Statistical Disclosure Control, 4.2.2);
    records a number are the degrees of freedom of Brandt et al. (2010), Guidelines for output checking.
    """
    for name, count in summary.people().items():
        if 0 < count < gate.min_cell:
            return f"fewer than {gate.min_cell} people are {name}"
    if summary.share > gate.max_share:
        return f"one row makes up more than {gate.max_share:.0%} of an arm's total"
    if summary.records < gate.per_number * numbers:
        return f"{numbers} numbers need {gate.per_number * numbers} records"
    return None


def dominated(study: Study, cohort: Cohort, names: tuple[str, ...]) -> str | None:
    """Why a cohort must stay for what one contributor has of it; None if it may leave or no contributor is named.

    The (1, k) dominance rule again, with the contributor in place of the row; `max_share` of 50 % is the rule of thumb
    of Brandt et al. (2010) for it. Looked at are each cell's rows and each arm's total. It names no contributor.
    """
    gate, whole = study.gate, cohort.summary
    if gate.contributor is None or whole is None:
        return None
    at, of_each = names.index(CONTRIBUTOR), defaultdict[object, list[Group]](list)
    for group in cohort.rows:
        if group[0][at] is not None:
            of_each[group[0][at]].append(group)
    parts = [summary_of(study, rows, names) for rows in of_each.values()]
    much = gate.max_share * (1 + ROUNDING)
    said = f"one {gate.contributor} has more than {gate.max_share:.0%} of"
    for name, count in whole.people().items():
        if any(part.people()[name] > much * count for part in parts):
            return f"{said} those {name}"
    for arm, total in whole.totals().items():
        if any(part.totals()[arm] > much * total for part in parts):
            return f"{said} the {arm} arm's total"
    return None
