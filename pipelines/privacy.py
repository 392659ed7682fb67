"""What is too small to leave a site: the gate on what is behind a packet. linter.py attacks the packet itself."""

from pipelines.effects import Summary
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
