"""What may leave a site: the gate on the cells behind a packet."""

from pipelines.effects import Cells
from pipelines.study import Gate

_NAMES = ("treated with the event", "treated without it", "control with the event", "control without it")


def refuse_small_cells(cells: Cells, gate: Gate) -> str | None:
    """Why a packet of these cells must stay at the site; None if it may leave.

    A log risk ratio, its standard error and n give the four cells back for most real tables, so the gate is on the
    cells and not on n. It names the cell and not its count: the notice is read by more people than the rows are.
    """
    for name, count in zip(_NAMES, cells.counts(), strict=True):
        if 0 < count < gate.min_cell:
            return f"fewer than {gate.min_cell} people are {name}"
    return None
