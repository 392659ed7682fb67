"""Where an outcome stands among a site's own outcomes: 1 = bottom 10 % .. 10 = top 10 %."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import ceil


def deciles(outcomes: Sequence[float]) -> list[int]:
    """The mid-rank decile, 1..10, of each outcome among all of them; a larger outcome is a better one.

    ceil(10 * (rank - 0.5) / n), equal outcomes sharing their average rank: one single outcome is 5.
    """
    ranked = sorted(outcomes)
    # Average rank - 0.5 is half of (how many are smaller + how many are not larger): integers, so no rounding at edges.
    return [
        ceil(5 * (bisect_left(ranked, outcome) + bisect_right(ranked, outcome)) / len(ranked)) for outcome in outcomes
    ]
