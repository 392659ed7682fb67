"""What plots are made of: colours, files that are the same for the same figure, rows of marks and words."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from io import BytesIO
from math import exp, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.files import replacing
from pipelines.scale import Scale, printable

if TYPE_CHECKING:  # matplotlib takes a second to import: it waits until a plot is drawn, or every command would pay
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = {
    "ink": "#1b2530",
    "muted": "#5b6876",
    "rule": "#d5dce3",
    "accent": "#14608a",
    "soft": "#8dbad3",
    "warm": "#b4531b",
    "funnel": "#eef2f6",
}
"""Every colour of a plot; the report swaps them for those of its light and its dark style."""

NAME_LENGTH = 26
LEFT, RIGHT = -0.682, 1.54
"""Where the words of a row begin and end, in widths of the axis."""
RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 10, 20, 50, 100)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as SVG or PNG, as the suffix says; the same figure gives the same bytes."""
    with replacing(path) as draft:
        draft.write_bytes(render(figure, path.suffix.removeprefix(".")))
    return path


def render(figure: Figure, form: str, *, transparent: bool = False) -> bytes:
    """The figure as `form`, "svg" (text stays text) or "png"; without a date, its ids made from its content alone."""
    import matplotlib

    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if form == "svg" else None
    sink = BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "qis", "svg.fonttype": "none"}):
        # Names come from strangers, in any script; where the font has no such letter a box is drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(sink, format=form, dpi=160, metadata=metadata, transparent=transparent)
    return sink.getvalue()


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an SVG element of a page: no namespaces, every id begins with `prefix`, PALETTE's colours are
    the page's variables of those names."""
    root = ET.fromstring(render(figure, "svg", transparent=True))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            element.set(name, _page_value(name, value, prefix))
    root.attrib.update({"role": "img", "aria-label": label})
    for size in ("width", "height"):
        del root.attrib[size]
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _page_value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-")
    if name == "style":
        for variable, colour in PALETTE.items():
            value = value.replace(colour, f"var(--{variable})")
    return re.sub(r"url\(#", f"url(#{prefix}-", value)


class RowPlot:
    """Rows of one mark each, words to the left and right of it; row 0 is on top."""

    def __init__(self, axes: Axes, scale: Scale, size: float) -> None:
        self.axes, self.scale, self.size = axes, scale, size

    def frame(self, low: float, high: float, rows: int) -> None:
        """The axis from `low` to `high`, and the line of no effect."""
        self.axes.set_xlim(low, high)
        self.axes.set_ylim(rows - 0.5, -0.5)
        self.axes.set_yticks([])
        self.axes.spines[["left", "right", "top"]].set_visible(False)
        self.axes.spines["bottom"].set_color(PALETTE["muted"])
        self.axes.tick_params(labelsize=self.size, color=PALETTE["muted"], labelcolor=PALETTE["ink"])
        self.axes.vlines(0, 0.6, rows - 0.5, color=PALETTE["muted"], linewidth=0.9, zorder=0)
        if self.scale.ratio and max(-low, high) < 20:
            ticks = ratio_ticks(low, high)
            self.axes.set_xticks([log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])

    def words(self, y: float, left: str, middle: str, right: str, *, bold: bool = False) -> None:
        style: dict[str, Any] = {
            "transform": self.axes.get_yaxis_transform(),
            "size": self.size,
            "va": "center_baseline",
            "color": PALETTE["ink"],
            "weight": "bold" if bold else "normal",
            "parse_math": False,
        }
        left = printable(left)
        if middle and len(left) > NAME_LENGTH:
            left = left[: NAME_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
        self.axes.text(LEFT, y, left, **style)
        self.axes.text(-0.03, y, middle, ha="right", **style)
        self.axes.text(RIGHT, y, right, ha="right", **style)

    def point(self, y: float, effect: float, marker: str, size: float, colour: str, gid: str | None = None) -> None:
        """A mark at `effect`, or an arrow at the end of the axis that it lies beyond."""
        low, high = self.axes.get_xlim()
        if not low <= effect <= high:
            marker, size = ("<", 5.0) if effect < low else (">", 5.0)
        position = min(max(effect, low), high)
        (mark,) = self.axes.plot(
            position, y, marker, markersize=size, color=colour, markeredgewidth=0, clip_on=False, zorder=3
        )
        mark.set_gid(gid)

    def whisker(self, y: float, low: float, high: float, colour: str, width: float) -> None:
        """A line from `low` to `high`; an arrow where the axis ends before it does."""
        first, last = self.axes.get_xlim()
        ends = [min(max(bound, first), last) for bound in (low, high)]
        self.axes.plot(ends, [y, y], color=colour, linewidth=width, solid_capstyle="butt", zorder=2)
        for bound in (low, high):
            if not first <= bound <= last:
                self.point(y, bound, "", 0, colour)

    def diamond(self, y: float, low: float, centre: float, high: float, colour: str) -> None:
        self.axes.fill([low, centre, high, centre], [y, y - 0.32, y, y + 0.32], color=colour, linewidth=0, zorder=3)
        first, last = self.axes.get_xlim()
        if not first <= centre <= last:
            self.point(y, centre, "", 0, colour)


def ratio_ticks(low: float, high: float) -> list[float]:
    """Ratios to label on an axis of logarithms: round ones, in tens on a long axis, evenly spaced on a short one."""
    from matplotlib.ticker import MaxNLocator

    if high - low < log(3):
        candidates = [float(tick) for tick in MaxNLocator(5).tick_values(exp(low), exp(high)) if tick > 0]
    elif high - low > log(2000):
        step = 1 + int((high - low) / log(10) / 8)
        candidates = [10.0**power for power in range(-9 * step, 9 * step, step)]
    else:
        candidates = [*RATIO_TICKS]
    return [tick for tick in candidates if low <= log(tick) <= high]
